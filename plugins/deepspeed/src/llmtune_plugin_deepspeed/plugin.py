"""Hooks of the extension `deepspeed`. The trainer backend `hf` runs its engine; what comes before that is here."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from llmtune.api import LoadedModel, LoadOptions, RunContext, hookimpl, world

_BATCHES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """What DeepSpeed cannot do, or would decide against the flags."""
    settings = config.get("deepspeed")
    if world()[1] == 1:
        yield "--deepspeed shares a model among processes, and this run has one: NPROC_PER_NODE=2 starts two"
    for name in _BATCHES:
        if settings.get(name, "auto") != "auto":
            yield f'--deepspeed: {name} is {settings[name]}; write "auto", the flags say how large a step is'


@hookimpl(wrapper=True)
def llmtune_load_model(options: LoadOptions, run: RunContext) -> Generator[None, LoadedModel, LoadedModel]:
    """Let transformers give each process its part of the weights as they are read (ZeRO-3)."""
    settings = run.options["extension", "deepspeed"].deepspeed
    if not options.weights or settings.get("zero_optimization", {}).get("stage") != 3:
        return (yield)
    from llmtune_plugin_deepspeed._loading import in_parts

    kept = in_parts(settings, options.dtype)
    loaded = yield
    loaded.model.deepspeed_settings = kept  # transformers knows it as long as it lives
    return loaded
