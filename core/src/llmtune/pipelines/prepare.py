"""What every pipeline starts with: names to owners, options, plugins, checks, None and AUTO values."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from llmtune.config import environment
from llmtune.config.build import add_options, replaced
from llmtune.config.commands import CommandConfig
from llmtune.config.field_names import option_names, plugin_flags, section_flags
from llmtune.data.load import RowLoader, SelectedDataset, select_datasets
from llmtune.data.report import DataReport
from llmtune.errors import UsageError
from llmtune.interfaces.quantizer import Quantizer
from llmtune.interfaces.template import Template
from llmtune.model.dtype import auto_dtype
from llmtune.model.fetch import Fetcher
from llmtune.model.resolve import ModelChoice, choose_model, fetch_model
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.plan import make_plan
from llmtune.plugins.requirements import check_requirements
from llmtune.specs import LoadedModel, LoadOptions, ModelSpec, RunContext, RunPlan, TemplateSpec

Config = TypeVar("Config", bound=CommandConfig)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Every name of a run with its owner."""

    model: ModelChoice
    template: Entry
    train: list[SelectedDataset] = field(default_factory=list)
    validation: list[SelectedDataset] = field(default_factory=list)
    behaviours: dict[str, Entry] = field(default_factory=dict)
    """kind -> the tuner, trainer, engine, quantizer of the run."""

    def entries(self) -> list[Entry]:
        chosen = [self.model.entry, self.template, *self.behaviours.values()]
        for selected in (*self.train, *self.validation):
            chosen += [selected.entry, selected.preprocessor]
        return list({(entry.kind, entry.qualified): entry for entry in chosen}.values())


@dataclass(kw_only=True)
class Prepared(Generic[Config]):
    """A run that is ready to do its work: configuration resolved, plugins active."""

    config: Config
    choices: Choices
    manager: PluginManager
    run: RunContext

    @property
    def plan(self) -> RunPlan:
        return self.run.plan

    def provide(self, hook: str, kind: str) -> Any:
        """Build the tuner, trainer, engine or quantizer of this run."""
        entry = self.choices.behaviours[kind]
        return self.manager.provide(
            hook, entry, name=entry.name, options=self.config.options(kind, entry.name), run=self.run
        )


def prepare(
    command: str, config: Config, catalogue: Catalogue, values: Mapping[str, Any], behaviours: Mapping[str, str | None]
) -> Prepared[Config]:
    """Resolve names, validate options, import the plugins of the run and let them check the plan.

    `behaviours` names the tuner, trainer ... by kind. Everything that is wrong with the plan is
    reported together, before anything is fetched or loaded.
    """
    choices = choose(config, catalogue, behaviours)
    quiet_libraries()
    for entry in choices.entries():
        check_requirements(entry)
        add_options(config, entry, values)
    for line in unused_flags(command, values, choices, catalogue):
        print(line, file=sys.stderr)
    plan = make_plan(command, choices.entries(), catalogue, config.plugins.custom_register_path)
    family = choices.model.entry.facts.get("tuner", {})
    bits = getattr(getattr(config, "quantization", None), "quantization_bit", 0)
    plan = dataclasses.replace(plan, target_modules=tuple(family.get("target_modules", ())), quantization_bit=bits)
    manager = PluginManager(catalogue, trace=environment.plugin_trace())
    manager.activate(plan.plugins)
    check(manager, plan, config, choices)
    config, plan = adjusted(manager, plan, config)
    rank, world_size = environment.world()
    run = RunContext(plan=plan, rank=rank, world_size=world_size, say=print if rank == 0 else _silent)
    prepared = Prepared(config=config, choices=choices, manager=manager, run=run)
    resolve(prepared)
    return prepared


def quiet_libraries() -> None:
    """Keep out of the output what no user of llmtune can act on."""
    # peft and accelerate import bitsandbytes wherever it is installed; it warns about an optional CPU kernel.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # a bar in a log file is a thousand lines


def _silent(text: str) -> None:
    """Other ranks say nothing."""


def choose(config: CommandConfig, catalogue: Catalogue, behaviours: Mapping[str, str | None]) -> Choices:
    """Find the owner of every name; all unknown names raise one after the other, the model first."""
    model = choose_model(config.model, catalogue)
    template = config.template.template_type
    return Choices(
        model=model,
        template=catalogue.find(
            "template", model.entry.facts.get("template", "chatml") if template == "AUTO" else template
        ),
        train=select_datasets(config.data.dataset, catalogue),
        validation=select_datasets(config.data.val_dataset, catalogue),
        behaviours={kind: catalogue.find(kind, name) for kind, name in behaviours.items() if name is not None},
    )


def quantizer_name(config: Any) -> str | None:
    """The quantizer of the run, None when the base model is not quantized."""
    if not config.quantization.quantization_bit:
        return None
    return config.quantization.quant_method or "bnb"


def unused_flags(command: str, values: Mapping[str, Any], choices: Choices, catalogue: Catalogue) -> Iterable[str]:
    """Yield a warning for each flag that belongs to a plugin which this run does not use."""
    used = set(section_flags(command)) | {name for entry in choices.entries() for name in option_names(entry)}
    owners = {flag: entry for flag, entry in plugin_flags(command, catalogue) if flag not in used}
    for flag in values:
        if flag in owners:
            owner = f"{owners[flag].kind} {owners[flag].name}"
            yield f"warning: --{flag} has no effect: it belongs to {owner}, which this run does not use"


def check(manager: PluginManager, plan: RunPlan, config: Any, choices: Choices) -> None:
    """Raise one `UsageError` with everything that core and the plugins find wrong."""
    problems = list(_core_problems(plan, choices))
    for answer in manager.event("llmtune_check_plan", plan=plan, config=config):
        problems += list(answer)
    if problems:
        raise UsageError("\n".join(problems), fix="nothing was loaded or written")


def _core_problems(plan: RunPlan, choices: Choices) -> Iterable[str]:
    tuner, quantizer = choices.behaviours.get("tuner"), choices.behaviours.get("quantizer")
    if quantizer is None:
        return
    bits = quantizer.facts.get("bits", [])
    if bits and plan.quantization_bit not in bits:
        yield f"--quantization_bit {plan.quantization_bit}: {quantizer.name} has {', '.join(map(str, bits))}"
    if tuner is not None and not tuner.facts.get("quantized_base", False) and plan.command == "sft":
        yield f"--sft_type {tuner.name} cannot train a quantized model; use lora, or --quantization_bit 0"


def adjusted(manager: PluginManager, plan: RunPlan, config: Config) -> tuple[Config, RunPlan]:
    """Fill None and AUTO values that plugins know better; a value that the user gave stays."""
    chosen: dict[str, str] = {}
    for answer in manager.event("llmtune_adjust_plan", plan=plan, config=config):
        for flag, value in answer.items():
            section = next(
                name for name in type(config).model_fields if flag in type(getattr(config, name)).model_fields
            )
            if getattr(getattr(config, section), flag) in (None, "AUTO"):
                config = replaced(config, section, **{flag: value})
                chosen[flag] = f"{value} (chosen by a plugin of the run)"
    return config, dataclasses.replace(plan, resolved={**plan.resolved, **chosen})


def resolve(prepared: Prepared[Any]) -> None:
    """Apply the rules for what is still None or AUTO, and record which rule decided."""
    config, resolved = prepared.config, dict(prepared.plan.resolved)
    for section, flag, value, rule in _rules(prepared):
        if getattr(getattr(config, section), flag) in (None, "AUTO"):
            config = replaced(config, section, **{flag: value})
            resolved[flag] = f"{value} ({rule})"
    prepared.config = config
    prepared.run = dataclasses.replace(prepared.run, plan=dataclasses.replace(prepared.plan, resolved=resolved))


def _rules(prepared: Prepared[Any]) -> Iterable[tuple[str, str, Any, str]]:
    config, tuner = prepared.config, prepared.choices.behaviours.get("tuner")
    if hasattr(config, "quantization") and config.model.dtype == "AUTO":
        yield "model", "dtype", *auto_dtype(prepared.choices.model.entry.facts.get("dtype"))
    training = getattr(config, "training", None)
    if training is None or tuner is None:
        return
    yield "data", "dataset_seed", training.seed, "--seed"
    yield "training", "learning_rate", tuner.facts.get("learning_rate", 1e-4), f"tuner {tuner.name}"
    steps = math.ceil(16 / training.batch_size / prepared.run.world_size)
    yield "training", "gradient_accumulation_steps", steps, "ceil(16 / batch_size / world_size)"
    yield "training", "save_steps", config.evaluation.eval_steps, "--eval_steps"
    yield "training", "save_only_model", tuner.facts.get("saves") == "model", "true for tuners that save whole models"
    yield "training", "dataloader_num_workers", 0, "rows are in memory"
    yield "evaluation", "eval_batch_size", training.batch_size, "--batch_size"


# --- steps that pipelines share -------------------------------------------------------------------


def fetcher(prepared: Prepared[Any]) -> Fetcher:
    section = prepared.config.hub
    wanted = section.hub or ("huggingface" if section.use_hf else None) or environment.preferred_hub()
    return Fetcher(prepared.manager, prepared.run, hub=wanted, offline=section.offline)


def row_loader(prepared: Prepared[Any], report: DataReport) -> RowLoader:
    return RowLoader(prepared.manager, fetcher(prepared), prepared.run, prepared.config.options, report)


def find_model(prepared: Prepared[Any]) -> ModelSpec:
    """Fetch the model and remember the hub it came from, so that a checkpoint finds the same weights."""
    spec = fetch_model(prepared.choices.model, fetcher(prepared), prepared.config.model.model_revision)
    hub, colon, _ = spec.source.partition(":")
    if colon and hub in {entry.name for entry in prepared.manager.catalogue.entries("hub")}:
        prepared.config = replaced(prepared.config, "hub", hub=hub)
    return spec


def load_model(prepared: Prepared[Any], spec: ModelSpec, *, weights: bool) -> LoadedModel:
    """Ask the owner of the model, with what the quantizer of the run adds."""
    section = prepared.config.model
    quantizer: Quantizer | None = None
    if weights and "quantizer" in prepared.choices.behaviours:
        quantizer = prepared.provide("llmtune_create_quantizer", "quantizer")
    options = LoadOptions(
        dtype=section.dtype,
        weights=weights,
        trust_remote_code=section.trust_remote_code,
        use_flash_attn=section.use_flash_attn,
        kwargs=quantizer.load_kwargs(section.dtype) if quantizer else {},
    )
    entry = prepared.choices.model.entry
    loaded: LoadedModel = prepared.manager.provide(
        "llmtune_load_model", entry, spec=spec, options=options, run=prepared.run
    )
    if quantizer:
        loaded.model = quantizer.quantize(loaded.model)
    if weights:
        prepared.manager.event("llmtune_model_loaded", loaded=loaded, run=prepared.run)
    return loaded


def make_template(
    prepared: Prepared[Any], tokenizer: Any, stored: TemplateSpec | None = None
) -> tuple[TemplateSpec, Template]:
    """Build the template; `stored` is the one of a checkpoint. `--system` replaces the default system prompt."""
    entry = prepared.choices.template
    known = {one.name for one in dataclasses.fields(TemplateSpec)} - {"name"}
    spec = stored or TemplateSpec(name=entry.name, **{key: value for key, value in entry.facts.items() if key in known})
    if prepared.config.template.system is not None:
        spec = dataclasses.replace(spec, default_system=prepared.config.template.system)
    template: Template = prepared.manager.provide(
        "llmtune_create_template", entry, spec=spec, tokenizer=tokenizer, run=prepared.run
    )
    return spec, template


def with_folder(prepared: Prepared[Any], folder: Path) -> RunContext:
    """Tell everything that comes after where the run writes."""
    prepared.run = dataclasses.replace(prepared.run, folder=folder)
    return prepared.run
