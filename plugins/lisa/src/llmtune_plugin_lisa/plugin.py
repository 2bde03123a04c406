"""Hooks of the tuner `lisa`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_lisa._tuner import LisaTuner
    from llmtune_plugin_lisa.options import LisaOptions

    return LisaTuner(options or LisaOptions(), run)


@hookimpl
def llmtune_adjust_plan(plan: Any, config: Any) -> Mapping[str, Any]:
    """Several processes must not wait for gradients of frozen layers; on a CPU fp32 is faster, as for `full`."""
    import torch

    return {"ddp_find_unused_parameters": True, **({} if torch.cuda.is_available() else {"dtype": "fp32"})}
