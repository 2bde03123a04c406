"""Hooks of the tuner `longlora`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    if hasattr(config, "training") and config.get("use_flash_attn"):
        yield "--sft_type longlora: S2-Attn is not made for flash attention; leave --use_flash_attn out: sdpa is used"


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_longlora._tuner import LongloraTuner
    from llmtune_plugin_longlora.options import LongloraOptions

    return LongloraTuner(options or LongloraOptions(), run)
