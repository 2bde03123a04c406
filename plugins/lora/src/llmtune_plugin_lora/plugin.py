"""Hooks of the tuner `lora`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_lora._tuner import LoraTuner
    from llmtune_plugin_lora.options import LoraOptions

    return LoraTuner(options or LoraOptions(), run)
