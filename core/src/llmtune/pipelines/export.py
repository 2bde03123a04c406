"""Writing a model in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.errors import Problems, UsageError
from llmtune.pipelines.merge import merge_lora
from llmtune.pipelines.publish import destination, publish_folder
from llmtune.pipelines.relayout import to_native, to_original
from llmtune.pipelines.to_peft_format import to_peft_format
from llmtune.pipelines.trained import checkpoint_folder

if TYPE_CHECKING:
    from llmtune.config.commands import ExportConfig
    from llmtune.plugins.catalogue import Catalogue


def export(config: ExportConfig, catalogue: Catalogue) -> Path:
    """Do what the flags ask for and return the folder that was written, or with --push_to_hub alone the checkpoint.

    The hub is asked first: a token that it refuses is known before a model is read.
    """
    if not config.upload.push_to_hub:
        return _written(config, catalogue)
    Problems(config.problems).raise_any()
    checkpoint = checkpoint_folder(config)
    to = destination(config, catalogue)
    folder = _written(config, catalogue) if _asks_for_a_form(config) or checkpoint is None else checkpoint
    publish_folder(config, catalogue, folder, to)
    return folder


def _asks_for_a_form(config: ExportConfig) -> bool:
    section = config.export
    return any((section.to_native, section.to_original, section.to_peft_format, config.merging.merge_lora))


def _written(config: ExportConfig, catalogue: Catalogue) -> Path:
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
        "there is nothing to export",
        fix="add --merge_lora, --to_peft_format, --to_native, --to_original or (with --ckpt_dir) --push_to_hub true",
    )
