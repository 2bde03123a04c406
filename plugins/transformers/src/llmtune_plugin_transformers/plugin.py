"""Hooks of the engine `transformers`."""

from __future__ import annotations

from typing import Any

from llmtune.api import Engine, RunContext, hookimpl


@hookimpl
def llmtune_create_engine(name: str, options: Any, run: RunContext) -> Engine:
    from llmtune_plugin_transformers._engine import TransformersEngine

    return TransformersEngine()
