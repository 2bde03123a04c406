"""What each installed tuner would train of a model, with its default flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmtune.config import environment
from llmtune.config.model import ModelSection
from llmtune.errors import LlmtuneError, UsageError
from llmtune.interfaces.tuner import Tuner, trainable_parameters
from llmtune.model.device import auto_dtype
from llmtune.model.fetch import Fetcher
from llmtune.model.memory import training_bytes
from llmtune.model.resolve import choose_model, fetch_model
from llmtune.pipelines.prepare import quiet_libraries
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manager import PluginManager
from llmtune.specs import LoadedModel, LoadOptions, RunContext, RunPlan


@dataclass(frozen=True, kw_only=True)
class TunerSize:
    """One tuner over one model; a tuner that cannot train it has a `problem` and no numbers."""

    name: str
    trained: int = 0
    total: int = 0
    memory: int = 0
    """Bytes of weights, gradients and optimizer."""
    memory_4bit: int | None = None
    """The same over a base in 4 bits; None where the tuner cannot train one."""
    problem: str = ""


def tuner_sizes(section: ModelSection, catalogue: Catalogue) -> Iterator[TunerSize]:
    """Yield the size of each installed tuner; the model's config is fetched, its weights are not."""
    quiet_libraries()
    choice = choose_model(section, catalogue)
    family = choice.entry.facts.get("tuner", {})
    plan = RunPlan(command="tuners", target_modules=tuple(family.get("target_modules", ())))
    run = RunContext(plan=plan, steps=1000)  # AdaLoRA spreads its schedule over the steps of a run
    manager = PluginManager(catalogue)
    spec = fetch_model(choice, Fetcher(manager, run, hub=environment.preferred_hub(), offline=False), weights=False)
    loaded: LoadedModel = manager.provide(
        "llmtune_load_model", choice.entry, spec=spec, options=LoadOptions(weights=False), run=run
    )
    dtype = LoadOptions(dtype=auto_dtype(choice.entry.facts.get("dtype"))[0]).torch_dtype
    for entry in catalogue.entries("tuner"):
        model = None if loaded.skeleton is None else loaded.skeleton(dtype)
        if model is None:
            raise UsageError(f"the layers of {spec.name} are not known without its weights")
        yield _size(entry, manager, model, run)


def _size(entry: Entry, manager: PluginManager, model: Any, run: RunContext) -> TunerSize:
    try:
        tuner: Tuner = manager.provide("llmtune_create_tuner", entry, name=entry.name, options=None, run=run)
        model = tuner.prepare(model)
    except LlmtuneError as error:
        return TunerSize(name=entry.name, problem=error.problem)
    trained, total = trainable_parameters(model)
    size = TunerSize(name=entry.name, trained=trained, total=total, memory=training_bytes(model, tuner))
    if not entry.facts.get("quantized_base", False):
        return size
    return dataclasses.replace(size, memory_4bit=training_bytes(model, tuner, bits=4))
