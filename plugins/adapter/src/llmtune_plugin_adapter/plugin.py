"""Hooks of the tuner `adapter`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """Refuse to merge before the base model is loaded."""
    if plan.command == "merge-lora" or config.get("merge_lora"):
        from llmtune_plugin_adapter._tuner import CANNOT_BE_MERGED

        yield str(CANNOT_BE_MERGED)


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_adapter._tuner import AdapterTuner
    from llmtune_plugin_adapter.options import AdapterOptions

    return AdapterTuner(options or AdapterOptions(), run)
