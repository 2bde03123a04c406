"""Hooks of the tuner `adalora`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_adalora._tuner import AdaloraTuner
    from llmtune_plugin_adalora.options import AdaloraOptions

    return AdaloraTuner(options or AdaloraOptions(), run)
