"""Hooks of the tuner `ia3`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_ia3._tuner import Ia3Tuner
    from llmtune_plugin_ia3.options import Ia3Options

    return Ia3Tuner(options or Ia3Options(), run)
