"""Hooks of the metric `nlg`."""

from __future__ import annotations

from typing import Any

from llmtune.api import Metric, RunContext, hookimpl


@hookimpl
def llmtune_create_metric(name: str, options: Any, run: RunContext) -> Metric:
    from llmtune_plugin_nlg_metrics._metric import NlgMetric

    return NlgMetric()
