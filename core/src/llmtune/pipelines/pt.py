"""Pre-training: fine-tuning with other defaults, mostly on plain text."""

from __future__ import annotations

from llmtune.config.commands import PtConfig
from llmtune.interfaces.trainer import RunResult
from llmtune.pipelines.sft import sft
from llmtune.plugins.catalogue import Catalogue


def pt(config: PtConfig, catalogue: Catalogue) -> RunResult | None:
    """Train and return the result, None after a dry run. A row that is one assistant turn is plain text."""
    return sft(config, catalogue, command="pt")
