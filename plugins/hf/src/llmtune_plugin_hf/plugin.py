"""Hooks of the trainer backend `hf`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import RunContext, Trainer, did_you_mean, hookimpl


@hookimpl
def llmtune_create_trainer(name: str, options: Any, run: RunContext) -> Trainer:
    from llmtune_plugin_hf._trainer import HfTrainer

    return HfTrainer()


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """Names that only transformers knows: optimizers and schedules."""
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    for flag, known in (("optim", OptimizerNames), ("lr_scheduler_type", SchedulerType)):
        names = [one.value for one in known]
        value = getattr(config.optimizer, flag)
        if value not in names:
            yield f"--{flag} {value!r} is unknown; {did_you_mean(value, names) or 'known are ' + ', '.join(names)}"
