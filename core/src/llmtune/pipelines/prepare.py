"""What every pipeline starts with: names to owners, options, plugins, checks, None and AUTO values."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from llmtune.config import environment
from llmtune.config.build import add_options, replaced
from llmtune.config.commands import CommandConfig
from llmtune.config.source import option_names, plugin_flags, section_flags
from llmtune.data.columns import check_mapping
from llmtune.data.select import SelectedDataset, select_dataset
from llmtune.errors import Problems, UsageError
from llmtune.interfaces.quantizer import Quantizer
from llmtune.interfaces.template import Template
from llmtune.model.device import device_count
from llmtune.model.fetch import Fetcher
from llmtune.model.placement import read_device_map
from llmtune.model.resolve import ModelChoice, choose_model, fetch_model
from llmtune.paths import user_path
from llmtune.pipelines.behaviours import find_behaviours
from llmtune.pipelines.rules import Rule, rules
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.plan import make_plan
from llmtune.plugins.requirements import check_requirements
from llmtune.specs import LoadedModel, LoadOptions, ModelSpec, RunContext, RunPlan, TemplateSpec, ToolsPromptSpec
from llmtune.template.carried import CarriedTemplate
from llmtune.template.loss_scale import LossScales, read_loss_scales
from llmtune.template.tools_prompt import find_tools_prompt
from llmtune.template.vocabulary import Vocabulary

Config = TypeVar("Config", bound=CommandConfig)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Every name of a run with its owner."""

    model: ModelChoice
    template: Entry
    train: list[SelectedDataset] = field(default_factory=list)
    validation: list[SelectedDataset] = field(default_factory=list)
    general: list[SelectedDataset] = field(default_factory=list)
    """Those of --train_dataset_mix_ds, where they are asked for."""
    tools_prompt: Entry | None = None
    """None where the template's own is not installed: an error only for rows with tools."""
    loss_scales: LossScales | None = None
    behaviours: dict[str, Entry] = field(default_factory=dict)
    """kind -> the tuner, trainer, engine, quantizer, metric of the run."""
    extensions: list[Entry] = field(default_factory=list)

    def entries(self) -> list[Entry]:
        chosen = [self.model.entry, self.template, *self.behaviours.values(), *self.extensions]
        chosen += [self.tools_prompt] if self.tools_prompt else []
        for selected in (*self.train, *self.validation, *self.general):
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
        """Build the tuner, trainer, engine, quantizer or metric of this run."""
        entry = self.choices.behaviours[kind]
        return self.manager.provide(
            hook, entry, name=entry.name, options=self.config.options(kind, entry.name), run=self.run
        )


def prepare(command: str, config: Config, catalogue: Catalogue) -> Prepared[Config]:
    """Resolve names, validate options, import the plugins of the run and let them check the plan.

    Everything that is wrong is reported together, before anything is fetched or loaded.
    """
    choices = choose(config, catalogue)
    quiet_libraries()
    for line in unused_flags(command, config, choices, catalogue):
        print(line, file=sys.stderr)
    plan = make_plan(command, choices.entries(), catalogue, config.plugins.custom_register_path)
    family = choices.model.entry.facts.get("tuner", {})
    bits = config.get("quantization_bit", 0)
    plan = dataclasses.replace(
        plan,
        target_modules=tuple(family.get("target_modules", ())),
        published_modules=family.get("published_modules", {}),
        quantization_bit=bits,
    )
    manager = PluginManager(catalogue, trace=environment.plugin_trace())
    manager.activate(plan.plugins)
    check(manager, plan, config)
    rank, world_size = environment.world() if hasattr(config, "training") else (0, 1)
    config, plan = adjusted(manager, plan, config)
    config, plan = resolved(config, plan, choices, world_size)
    run = RunContext(
        plan=plan,
        rank=rank,
        world_size=world_size,
        say=print if rank == 0 else _silent,
        options=config.all_options(),
        seed=config.get("seed", 42),
    )
    return Prepared(config=config, choices=choices, manager=manager, run=run)


def quiet_libraries() -> None:
    """Keep out of the output what no user of llmtune can act on."""
    # peft and accelerate import bitsandbytes wherever it is installed; it warns about an optional CPU kernel.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # a bar in a log file is a thousand lines


def _silent(text: str) -> None:
    """Other ranks say nothing."""


def choose(config: Any, catalogue: Catalogue) -> Choices:
    """Find the owner of every name and validate its options; all mistakes are raised together."""
    problems = Problems(config.problems)
    model = problems.collect(choose_model, config.model, catalogue)
    template = problems.collect(_template, config, model, catalogue)
    tools_prompt = problems.collect(find_tools_prompt, config.template.tools_prompt, template, catalogue)
    loss_scales = problems.collect(_loss_scales, config, catalogue)
    mixed = config.get("train_dataset_mix_ds", []) if config.get("train_dataset_mix_ratio", 0.0) else []
    train, validation, general = (
        [found for text in texts if (found := problems.collect(select_dataset, text, catalogue)) is not None]
        for texts in (config.data.dataset, config.data.val_dataset, mixed)
    )
    problems.collect(check_mapping, config.data.columns or {})
    problems.collect(_device_map, config)
    used, extending = find_behaviours(config, catalogue, problems)
    entries = [template, *used.values(), *extending, *(one.preprocessor for one in (*train, *validation, *general))]
    for entry in (*([model.entry] if model else []), *(entry for entry in entries if entry is not None)):
        check_requirements(entry)
        problems.collect(add_options, config, entry)
    problems.add(_contradictions(config, used))
    problems.add(_unshareable(config, used.get("tuner")))
    problems.raise_any()
    assert model is not None
    assert template is not None
    return Choices(
        model=model,
        template=template,
        train=train,
        validation=validation,
        general=general,
        tools_prompt=tools_prompt,
        loss_scales=loss_scales,
        behaviours=used,
        extensions=extending,
    )


def _contradictions(config: Any, chosen: Mapping[str, Entry]) -> Iterable[str]:
    """Yield what the facts of the chosen plugins, or this machine, say against the flags."""
    tuner, quantizer = chosen.get("tuner"), chosen.get("quantizer")
    if hasattr(config, "training") and not config.data.dataset:
        yield "no dataset was chosen: add --dataset NAME_OR_FILE (llmtune datasets lists the names)"
    sizes = config.model.device_max_memory
    if sizes and len(sizes) != device_count():
        yield f"--device_max_memory has {len(sizes)} values for {device_count()} devices"
    if config.model.use_flash_attn and find_spec("flash_attn") is None:
        yield "--use_flash_attn true needs flash-attn: pip install flash-attn --no-build-isolation"
    if quantizer is None:
        return
    bits = quantizer.facts.get("bits", [])
    if bits and config.quantization.quantization_bit not in bits:
        given = config.quantization.quantization_bit
        yield f"--quantization_bit {given}: {quantizer.name} has {', '.join(map(str, bits))}"
    if tuner is not None and not tuner.facts.get("quantized_base", False) and hasattr(config, "training"):
        yield f"--sft_type {tuner.name} cannot train a quantized model; use lora, or --quantization_bit 0"


def _template(config: Any, model: ModelChoice | None, catalogue: Catalogue) -> Entry | None:
    name = config.template.template_type
    if name != "AUTO":
        return catalogue.find("template", name)
    return None if model is None else catalogue.find("template", model.entry.facts.get("template", "jinja"))


def _loss_scales(config: Any, catalogue: Catalogue) -> LossScales | None:
    """Return the weights of --loss_scale_config_path, none without --use_loss_scale."""
    if not config.get("use_loss_scale", False):
        return None
    return read_loss_scales(config.loss.loss_scale_config_path, lambda name: catalogue.find("loss_scale", name).facts)


def unused_flags(command: str, config: CommandConfig, choices: Choices, catalogue: Catalogue) -> Iterable[str]:
    """Yield a warning for each flag that belongs to a plugin which this run does not use."""
    used = set(section_flags(command)) | {name for entry in choices.entries() for name in option_names(entry)}
    owners = {flag: entry for flag, entry in plugin_flags(command, catalogue) if flag not in used}
    for flag in config.values:
        if flag in owners:
            owner = f"{owners[flag].kind} {owners[flag].name}"
            yield f"warning: --{flag} has no effect: it belongs to {owner}, which this run does not use"


def check(manager: PluginManager, plan: RunPlan, config: Any) -> None:
    """Raise one `UsageError` with everything that the plugins of the run find wrong."""
    answers = manager.event("llmtune_check_plan", plan=plan, config=config)
    Problems(line for answer in answers for line in answer).raise_any()


def adjusted(manager: PluginManager, plan: RunPlan, config: Config) -> tuple[Config, RunPlan]:
    """Fill None and AUTO values that plugins know better; a value that the user gave stays."""
    found = []
    for answer in manager.event("llmtune_adjust_plan", plan=plan, config=config):
        found += [Rule(flag, value, "chosen by a plugin of the run") for flag, value in answer.items()]
    return apply(found, config, plan)


def resolved(config: Config, plan: RunPlan, choices: Choices, world_size: int) -> tuple[Config, RunPlan]:
    """Apply the rules for what is still None or AUTO."""
    found = rules(
        config,
        model=choices.model.entry,
        template=choices.template.name,
        tuner=choices.behaviours.get("tuner"),
        world_size=world_size,
    )
    return apply(found, config, plan)


def apply(found: Iterable[Rule], config: Config, plan: RunPlan) -> tuple[Config, RunPlan]:
    """Set what is None or AUTO and record the rule; flags that the command does not have are left out."""
    record: dict[str, dict[str, Any]] = {}
    for rule in found:
        if config.get(rule.flag, _ABSENT) in (None, "AUTO") and rule.value is not None:
            config = replaced(config, config.section_of(rule.flag), **{rule.flag: rule.value})
            record[rule.flag] = {"value": rule.value, "rule": rule.reason}
    return config, dataclasses.replace(plan, resolved={**plan.resolved, **record})


_ABSENT = object()


# --- steps that pipelines share -------------------------------------------------------------------


def fetcher(prepared: Prepared[Any]) -> Fetcher:
    section = prepared.config.hub
    preferred = None if section.use_hf is False else environment.preferred_hub()
    wanted = section.hub or ("huggingface" if section.use_hf else preferred)
    offline = section.offline or not section.check_model_is_latest
    return Fetcher(prepared.manager, prepared.run, hub=wanted, offline=offline)


def find_model(prepared: Prepared[Any], *, weights: bool = True) -> ModelSpec:
    """Fetch the model, or without `weights` its tokenizer and config.

    The hub it came from is remembered, so that a checkpoint finds the same weights.
    """
    spec = fetch_model(prepared.choices.model, fetcher(prepared), prepared.config.model.model_revision, weights=weights)
    hub, colon, _ = spec.source.partition(":")
    if colon and hub in {entry.name for entry in prepared.manager.catalogue.entries("hub")}:
        prepared.config = replaced(prepared.config, "hub", hub=hub)
    return spec


def load_model(prepared: Prepared[Any], spec: ModelSpec, *, weights: bool) -> LoadedModel:
    """Ask the owner of the model, with what the quantizer of the run adds."""
    section = prepared.config.model
    quantizer = make_quantizer(prepared) if weights else None
    options = LoadOptions(
        dtype=section.dtype,
        weights=weights,
        trust_remote_code=section.trust_remote_code,
        pickled_weights=section.read_pickled_weights,
        use_flash_attn=section.use_flash_attn,
        rope_scaling=section.rope_scaling,
        max_length=prepared.config.template.max_length,
        device_map=_device_map(prepared.config),
        max_memory=section.device_max_memory,
        shared=is_shared(prepared.config),
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


def is_shared(config: Any) -> bool:
    """Whether each process of the run is going to hold a part of the model alone."""
    return bool(config.get("fsdp")) or is_loaded_in_parts(config)


def is_loaded_in_parts(config: Any) -> bool:
    """Whether the processes load the weights together, each its own part of them (ZeRO-3)."""
    deepspeed = config.get("deepspeed")
    return isinstance(deepspeed, dict) and deepspeed.get("zero_optimization", {}).get("stage") == 3


def _unshareable(config: Any, tuner: Entry | None) -> Iterable[str]:
    """Yield what cannot be done with a model of which each process holds a part."""
    flag = next((name for name in ("fsdp", "deepspeed") if config.get(name)), None)
    if flag and tuner and not tuner.facts.get("shareable", False):
        yield f"--{flag}: --sft_type {tuner.name} needs whole parameters and gradients; use lora or full"
    if flag and config.get("quantization_bit") and is_shared(config):
        yield f"--{flag} cannot share the packed weights of --quantization_bit; train over them with DDP"
    if is_shared(config) and (config.get("device_map_config_path") or config.get("device_max_memory")):
        yield f"--{flag} places the model itself: leave out --device_map_config_path and --device_max_memory"
    if config.get("predict_with_generate") and is_shared(config):
        yield f"--predict_with_generate needs the whole model in each process, which --{flag} does not leave there"


def make_quantizer(prepared: Prepared[Any]) -> Quantizer | None:
    """Build the quantizer of the run, if it has one."""
    if "quantizer" not in prepared.choices.behaviours:
        return None
    quantizer: Quantizer = prepared.provide("llmtune_create_quantizer", "quantizer")
    return quantizer


def _device_map(config: Any) -> dict[str, int | str] | None:
    path = config.model.device_map_config_path
    return None if path is None else read_device_map(user_path(path))


def make_template(
    prepared: Prepared[Any], tokenizer: Any, stored: TemplateSpec | None = None
) -> tuple[TemplateSpec, Template]:
    """Build the template; `stored` is the one of a checkpoint. `--system` replaces the default system prompt."""
    entry, tools = prepared.choices.template, prepared.choices.tools_prompt
    spec = stored or TemplateSpec.from_facts(entry.name, entry.facts)
    if tools is not None and (stored is None or prepared.config.given("tools_prompt")):
        spec = dataclasses.replace(spec, tools_prompt=ToolsPromptSpec.from_facts(tools.name, tools.facts))
    if prepared.config.template.system is not None:
        spec = dataclasses.replace(spec, default_system=prepared.config.template.system)
    template: Template = prepared.manager.provide(
        "llmtune_create_template", entry, spec=spec, tokenizer=tokenizer, run=prepared.run
    )
    template.loss_scales = prepared.choices.loss_scales
    if isinstance(template, CarriedTemplate) and not template.ends_answers:
        prepared.run.say("note: in the model's chat template no control token ends an answer: nothing will stop one")
    if prepared.config.template.special_tokens_in_text:
        _let_special_tokens_in(template, spec.name)
    return spec, template


def _let_special_tokens_in(template: Template, name: str) -> None:
    vocabulary = getattr(template, "vocabulary", None)
    if not isinstance(vocabulary, Vocabulary):
        raise UsageError(f"template {name!r} cannot do --special_tokens_in_text: it tokenises texts in its own way")
    vocabulary.special_tokens_in_text = True


def with_steps(prepared: Prepared[Any], steps: int) -> None:
    """Tell everything that comes after how many optimizer steps the run has."""
    prepared.run = dataclasses.replace(prepared.run, steps=steps)


def with_folder(prepared: Prepared[Any], folder: Path) -> RunContext:
    """Tell everything that comes after where the run writes."""
    prepared.run = dataclasses.replace(prepared.run, folder=folder)
    return prepared.run
