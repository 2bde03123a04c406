"""Writing a model in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.errors import Problems, UsageError
from llmtune.pipelines.merge import merge_lora

if TYPE_CHECKING:
    from llmtune.config.commands import ExportConfig
    from llmtune.plugins.catalogue import Catalogue


def export(config: ExportConfig, catalogue: Catalogue) -> Path:
    """Do what the flags ask for and return the folder that was written."""
    if not config.merging.merge_lora:
        Problems(config.problems).raise_any()
        raise UsageError("there is nothing to export", fix="add --merge_lora true")
    return merge_lora(config, catalogue)
