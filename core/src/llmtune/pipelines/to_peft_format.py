"""An adapter that another program wrote as a checkpoint of llmtune's, in peft's form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import Tuner
from llmtune.pipelines.prepare import find_model, load_model, prepare
from llmtune.pipelines.trained import checkpoint_folder, trained_template
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import CheckpointFiles

if TYPE_CHECKING:
    from llmtune.config.commands import ExportConfig
    from llmtune.plugins.catalogue import Catalogue


def to_peft_format(config: ExportConfig, catalogue: Catalogue) -> Path:
    """Write `<ckpt_dir>-peft` and return it; the base model's weights are not read."""
    folder = checkpoint_folder(config)
    if folder is None:
        raise UsageError("there is no adapter to convert", fix="add --ckpt_dir FOLDER")
    prepared = prepare("export", config, catalogue)
    final = folder.with_name(f"{folder.name}-peft")
    tokenizer = load_model(prepared, find_model(prepared, weights=False), weights=False).tokenizer
    spec, template = trained_template(prepared, tokenizer)
    arguments = {
        **prepared.config.model.model_dump(mode="json"),
        "hub": prepared.config.hub.hub,
        "sft_type": prepared.config.inference.sft_type,
        "template_type": prepared.choices.template.name,
    }
    files = CheckpointFiles(arguments, spec, template, tokenizer, prepared.config.generation)
    tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
    with checkpoint.writing(final) as staged:
        tuner.to_peft(folder, staged)
        files.write(staged)
    prepared.run.say(f"adapter in peft's form: {final}\ntry it: llmtune infer --ckpt_dir {final}")
    return final
