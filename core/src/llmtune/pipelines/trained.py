"""What a checkpoint holds: the trained model and the template that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.errors import UsageError
from llmtune.interfaces.template import Template
from llmtune.interfaces.tuner import Tuner
from llmtune.paths import user_path
from llmtune.pipelines.prepare import Prepared, find_model, load_model, make_template
from llmtune.specs import LoadedModel, ModelSpec, TemplateSpec
from llmtune.train.checkpoint import check_readable
from llmtune.train.checkpoint_files import read_template

if TYPE_CHECKING:
    from llmtune.config.commands import InferConfig


def checkpoint_folder(config: InferConfig) -> Path | None:
    """Return the folder of --ckpt_dir, None without one."""
    given = config.inference.ckpt_dir
    return user_path(given) if given else None


def load_trained(prepared: Prepared[Any]) -> LoadedModel:
    """Load the base model with the checkpoint's adapter, or the whole model of the checkpoint."""
    folder = checkpoint_folder(prepared.config)
    if folder is None:
        return load_model(prepared, find_model(prepared), weights=True)
    if is_whole(prepared):
        if prepared.config.inference.lora_modules:
            raise UsageError(f"--lora_modules: {folder} holds a whole model, not an adapter", fix="leave it out")
        entry = prepared.choices.model.entry
        spec = ModelSpec(name=entry.name, facts=entry.facts, folder=folder, source=str(folder))
        return load_model(prepared, spec, weights=True)
    loaded = load_model(prepared, find_model(prepared), weights=True)
    tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
    loaded.model = tuner.load(loaded.model, folder)
    return with_more_adapters(loaded, tuner, prepared.config.inference.lora_modules)


def with_more_adapters(loaded: LoadedModel, tuner: Tuner, named_folders: Sequence[str]) -> LoadedModel:
    """Add the adapters of --lora_modules to a model that has one."""
    for word in named_folders:
        name, _, path = word.partition("=")
        folder = user_path(path)
        check_readable(folder)
        try:
            loaded.model = tuner.add(loaded.model, folder, name)
        except NotImplementedError as error:
            raise UsageError(
                f"--lora_modules {word}: the adapter of --ckpt_dir is of a kind that has one at a time",
                fix="leave out --lora_modules",
            ) from error
    if named_folders:
        loaded.adapters = tuple(word.partition("=")[0] for word in named_folders)
        loaded.choose = partial(tuner.choose, loaded.model)
        loaded.choose(None)
    return loaded


def is_whole(prepared: Prepared[Any]) -> bool:
    """Whether the checkpoint holds a whole model rather than an adapter."""
    return bool(prepared.choices.behaviours["tuner"].facts.get("saves") == "model")


def trained_template(prepared: Prepared[Any], tokenizer: Any) -> tuple[TemplateSpec, Template]:
    """Build the template of the checkpoint, or another that the user chose."""
    folder = checkpoint_folder(prepared.config)
    stored = read_template(folder) if folder else None
    user_chose = prepared.config.given("template_type") and "AUTO" not in prepared.config.values["template_type"]
    if stored is not None and user_chose and stored.name != prepared.choices.template.name:
        stored = None
    return make_template(prepared, tokenizer, stored)
