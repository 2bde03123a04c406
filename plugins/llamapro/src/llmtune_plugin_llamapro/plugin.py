"""Hooks of the tuner `llamapro`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_llamapro._tuner import LlamaproTuner
    from llmtune_plugin_llamapro.options import LlamaproOptions

    return LlamaproTuner(options or LlamaproOptions(), run)


@hookimpl
def llmtune_adjust_plan(plan: Any, config: Any) -> Mapping[str, Any]:
    """On a CPU, train in fp32, as `full` does: whole layers are trained, and bf16 is slower there."""
    import torch

    return {} if torch.cuda.is_available() else {"dtype": "fp32"}
