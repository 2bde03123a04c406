"""Hooks of the hub `modelscope`."""

from __future__ import annotations

from typing import Any

from llmtune.api import Hub, RunContext, hookimpl


@hookimpl
def llmtune_create_hub(name: str, options: Any, run: RunContext) -> Hub:
    from llmtune_plugin_modelscope._hub import ModelScopeHub

    return ModelScopeHub()
