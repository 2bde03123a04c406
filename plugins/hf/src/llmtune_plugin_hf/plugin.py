"""Hooks of the trainer backend `hf`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Trainer, hookimpl


@hookimpl
def llmtune_create_trainer(name: str, options: Any, run: RunContext) -> Trainer:
    from llmtune_plugin_hf._trainer import HfTrainer

    return HfTrainer()
