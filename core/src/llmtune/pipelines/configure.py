"""From what was given for the flags of a command to its configuration, for the command line and for Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmtune.config.aliases import modernised
from llmtune.config.build import build_config
from llmtune.config.command_line import known_flags
from llmtune.config.commands import COMMANDS, CommandConfig
from llmtune.config.flags import Given, check_names
from llmtune.config.source import option_names
from llmtune.paths import user_path
from llmtune.plugins.catalogue import Catalogue
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import read_arguments

# What a checkpoint says about itself. Code paths (custom_register_path, trust_remote_code) are never
# taken from it: a checkpoint may come from anybody.
_FROM_CHECKPOINT = (
    *("model_type", "model_id_or_path", "model_revision", "hub", "dtype"),
    *("sft_type", "template_type", "system", "tools_prompt", "quant_method", "quantization_bit", "rope_scaling"),
)
_OF_THE_BASE = ("model_type", "model_id_or_path", "model_revision", "hub")
# A folder that SWIFT wrote says these in the same words: flag -> the kind that it names.
_NAMED = {"model_type": "model", "template_type": "template", "sft_type": "tuner"}
_OF_SWIFT = ("sft_args.json", "args.json")
_DATASETS = (
    *("dataset", "val_dataset", "dataset_seed", "dataset_test_ratio", "check_dataset_strategy"),
    *("train_dataset_sample", "val_dataset_sample"),
)


def configure(
    command: str, given: Given, catalogue: Catalogue, *, warn: Callable[[str], None] | None = None
) -> tuple[CommandConfig, Catalogue]:
    """Validate `given` and return (configuration, catalogue with the local plugins that it names).

    Old names become today's, with a line each through `warn`; what the user left open comes from the
    checkpoint of `ckpt_dir`. Raises one `UsageError` with everything that is wrong.
    """
    known = known_flags(command, catalogue)
    check_names(given, known, command)
    given, notes = modernised(given, known)
    for note in notes:
        (warn or _to_stderr)(f"warning: {note}")
    config = build_config(COMMANDS[command], given)
    catalogue = _with_local(catalogue, config)
    if config.get("tuner_backend") == "swift":
        (warn or _to_stderr)("note: adapters are written in peft's form, which SWIFT reads as well")
    if config.get("ckpt_dir") is not None:
        given, user = from_checkpoint(given, config, catalogue), frozenset(given)
        config = build_config(COMMANDS[command], given, user)
    return config, catalogue


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _with_local(catalogue: Catalogue, config: CommandConfig) -> Catalogue:
    """Add the local plugins that are not loaded yet; those on the command line are there already."""
    from llmtune.plugins.dataset_info import with_dataset_info
    from llmtune.plugins.local import add_local_plugins

    if config.get("custom_dataset_info") is not None:
        catalogue = with_dataset_info(catalogue, config.get("custom_dataset_info"))
    present = {plugin.version for plugin in catalogue.plugins if plugin.local is not None}
    paths = config.plugins.custom_register_path
    return add_local_plugins(catalogue, [path for path in paths if str(user_path(path).resolve()) not in present])


def from_checkpoint(given: Given, config: Any, catalogue: Catalogue) -> Given:
    """Return the flags that the checkpoint was trained with, the user's own on top."""
    section = config.inference
    folder = user_path(section.ckpt_dir)
    checkpoint.check_readable(folder)
    if not section.load_args_from_ckpt_dir:
        return given
    if checkpoint.is_foreign(folder):
        return Given({**_known_to(catalogue, folder), **given}, given.places)
    wanted = [*_FROM_CHECKPOINT, *(flag for entry in catalogue.entries("quantizer") for flag in option_names(entry))]
    if section.load_dataset_config:
        wanted += [*_DATASETS, *(flag for entry in catalogue.entries("preprocessor") for flag in option_names(entry))]
    if {"model_type", "model_id_or_path"} & set(given):  # another base: its own model, hub and revision
        wanted = [flag for flag in wanted if flag not in _OF_THE_BASE]
    stored = read_arguments(folder)
    wanted += ["max_length"] if stored.get("rope_scaling") else []  # the length that the positions are scaled to
    return Given({**{flag: stored[flag] for flag in wanted if flag in stored}, **given}, given.places)


def _known_to(catalogue: Catalogue, folder: Path) -> dict[str, Any]:
    """Return what the files of SWIFT in a foreign folder say, as far as it means the same here."""
    name = next((name for name in _OF_SWIFT if (folder / name).is_file()), None)
    stored = read_arguments(folder, name) if name else {}
    known = {flag: stored[flag] for flag, kind in _NAMED.items() if catalogue.get(kind, str(stored.get(flag)))}
    return known | ({"system": stored["system"]} if isinstance(stored.get("system"), str) else {})
