"""Hooks of the trainer backend `hf`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import RunContext, Trainer, hookimpl


@hookimpl
def llmtune_create_trainer(name: str, options: Any, run: RunContext) -> Trainer:
    from llmtune_plugin_hf._trainer import HfTrainer

    return HfTrainer()


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """What only transformers knows: optimizers, schedules and trackers."""
    from llmtune_plugin_hf._checks import check_optimizer, check_schedule, check_trackers

    yield from check_optimizer(config.optimizer.optim)
    yield from check_schedule(config.optimizer)
    yield from check_trackers(config.tracking.report_to)
