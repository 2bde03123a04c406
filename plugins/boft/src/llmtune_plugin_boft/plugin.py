"""Hooks of the tuner `boft`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_boft._tuner import BoftTuner
    from llmtune_plugin_boft.options import BoftOptions

    return BoftTuner(options or BoftOptions(), run)
