"""Hooks of the trainer backend `hf`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import RunContext, Trainer, hookimpl, world


@hookimpl
def llmtune_create_trainer(name: str, options: Any, run: RunContext) -> Trainer:
    from llmtune_plugin_hf._trainer import HfTrainer

    extension = run.options.get(("extension", "deepspeed"))
    return HfTrainer(extension.deepspeed if extension else None)


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """What only transformers knows: optimizers, schedules and trackers; and what FSDP2 cannot do."""
    from llmtune_plugin_hf._checks import check_optimizer, check_schedule, check_trackers
    from llmtune_plugin_hf._fsdp_settings import fsdp_problems

    yield from fsdp_problems(config, world()[1])
    yield from check_optimizer(config.optimizer.optim)
    yield from check_schedule(config.optimizer)
    yield from check_trackers(config.tracking.report_to)
