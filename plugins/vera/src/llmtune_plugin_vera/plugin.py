"""Hooks of the tuner `vera`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_vera._tuner import VeraTuner
    from llmtune_plugin_vera.options import VeraOptions

    return VeraTuner(options or VeraOptions(), run)
