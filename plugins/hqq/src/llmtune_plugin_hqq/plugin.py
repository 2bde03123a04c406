"""Hooks of the quantizer `hqq`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import Quantizer, RunContext, UsageError, hookimpl


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """Read the file of --hqq_dynamic_config_path before anything is loaded."""
    from llmtune_plugin_hqq._layers import read_layers

    path = getattr(config.options("quantizer", "hqq"), "hqq_dynamic_config_path", None)
    if path is not None:
        try:
            read_layers(path)
        except UsageError as error:
            yield str(error)


@hookimpl
def llmtune_create_quantizer(name: str, options: Any, run: RunContext) -> Quantizer:
    from llmtune_plugin_hqq._quantizer import HqqQuantizer
    from llmtune_plugin_hqq.options import HqqOptions

    return HqqQuantizer(options or HqqOptions(), run)
