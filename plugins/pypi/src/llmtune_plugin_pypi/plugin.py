"""Hooks of the hub `pypi`."""

from __future__ import annotations

from typing import Any

from llmtune.api import Hub, RunContext, cache_folder, hookimpl


@hookimpl
def llmtune_create_hub(name: str, options: Any, run: RunContext) -> Hub:
    from llmtune_plugin_pypi._hub import PypiHub

    return PypiHub(cache_folder() / "pypi", run.say)
