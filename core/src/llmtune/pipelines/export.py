"""Writing a model in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.errors import Problems, UsageError
from llmtune.pipelines.merge import merge_lora
from llmtune.pipelines.relayout import to_native, to_original
from llmtune.pipelines.to_peft_format import to_peft_format

if TYPE_CHECKING:
    from llmtune.config.commands import ExportConfig
    from llmtune.plugins.catalogue import Catalogue


def export(config: ExportConfig, catalogue: Catalogue) -> Path:
    """Do what the flags ask for and return the folder that was written."""
    if config.export.to_native and config.export.to_original:
        raise UsageError("--to_native and --to_original name two layouts", fix="give one of them")
    if config.export.to_native:
        return to_native(config, catalogue)
    if config.export.to_original:
        return to_original(config, catalogue)
    if config.export.to_peft_format:
        return to_peft_format(config, catalogue)
    if config.merging.merge_lora:
        return merge_lora(config, catalogue)
    Problems(config.problems).raise_any()
    raise UsageError(
        "there is nothing to export", fix="add --merge_lora, --to_peft_format, --to_native or --to_original true"
    )
