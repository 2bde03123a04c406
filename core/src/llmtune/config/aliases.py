"""Names of 2023 and of SWIFT's own deprecations: what each is called now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from llmtune.config.flags import Given, Words
from llmtune.errors import UsageError
from llmtune.paths import split_names

RENAMED = {
    "boft_modules_to_save": "modules_to_save",
    "boft_target_modules": "target_modules",
    "deepspeed_config_path": "deepspeed",
    "eval_strategy": "evaluation_strategy",
    "ia3_modules_to_save": "modules_to_save",
    "ia3_target_modules": "target_modules",
    "lora_dropout_p": "lora_dropout",
    "lora_modules_to_save": "modules_to_save",
    "lora_target_modules": "target_modules",
    "lora_target_regex": "target_regex",
    "merge_lora_and_save": "merge_lora",
    "model_cache_dir": "model_id_or_path",
    "neftune_alpha": "neftune_noise_alpha",
    "only_save_model": "save_only_model",
    "per_device_eval_batch_size": "eval_batch_size",
    "per_device_train_batch_size": "batch_size",
    "safe_serialization": "save_safetensors",
    "server_name": "host",
    "server_port": "port",
    "vera_modules_to_save": "modules_to_save",
    "vera_target_modules": "target_modules",
    "vllm_lora_modules": "lora_modules",
}
"""Old name -> the flag that takes the same value."""

SELECTORS = {
    "custom_train_dataset_path": ("dataset", "{}"),
    "custom_val_dataset_path": ("val_dataset", "{}"),
    "self_cognition_sample": ("dataset", "self-cognition#{}"),
}
"""Old name -> the list flag that its values are added to, and the form of each."""


def aliases(known: Collection[str]) -> dict[str, str]:
    """Return old name -> new name for a command that knows the flags `known`."""
    names = {**RENAMED, **{old: new for old, (new, _) in SELECTORS.items()}}
    return {old: new for old, new in names.items() if new in known}


def modernised(given: Given, known: Collection[str]) -> tuple[Given, list[str]]:
    """Return the values under today's names, and a line for each old name that was used."""
    values, places = dict(given), dict(given.places)
    notes = []
    for old, new in aliases(known).items():
        if old not in values:
            continue
        value, place = values.pop(old), places.pop(old, f"--{old}")
        if old in SELECTORS:
            added = list(_selectors(SELECTORS[old][1], value))
            notes.append(f"--{old} is deprecated; write --{new} {' '.join(added) or '...'}")
            values[new] = Words([*_as_list(values.get(new)), *added])
            continue
        notes.append(f"--{old} is deprecated; write --{new}")
        if _is_left_open(new, value):
            continue
        if new in values:
            raise UsageError(f"--{old} is the old name of --{new}; both were given", fix=f"keep --{new}")
        values[new], places[new] = value, place
    return Given(values, places), notes


_LISTS = ("target_modules", "modules_to_save", "lora_modules")


def _is_left_open(new: str, value: Any) -> bool:
    """Old names default to None or to an empty list, which never was a value for the new one."""
    return value in (None, ["None"], ["none"], ["null"]) or (new in _LISTS and value == [])


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _selectors(form: str, value: Any) -> Iterator[str]:
    for item in _as_list(value):
        words = split_names(str(item)) if "#" not in form else [str(item)]
        yield from (form.format(word) for word in words if word not in ("", "None", "null", "0"))
