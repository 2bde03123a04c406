"""Hooks of the tuner `fourierft`."""

from __future__ import annotations

from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_fourierft._tuner import FourierftTuner
    from llmtune_plugin_fourierft.options import FourierftOptions

    return FourierftTuner(options or FourierftOptions(), run)
