"""Adapters as SWIFT writes them with `--tuner_backend swift`, turned into peft's form.

SWIFT 2 to 4 write one folder for each adapter, named after it (`default`). Its adapter_config.json has peft's
settings of a LoRA and some of SWIFT's own, `swift_type` among them. Its tensors bear the layer's own name, without
peft's prefix, and the adapter's (`model.layers.0.self_attn.q_proj.lora_A.default.weight`). Checked against what
ms-swift 4.6.0 writes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import load_file, save_file

from llmtune.api import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WHOLE_LAYERS = "extra_states"
"""Folder that SWIFT writes besides where its `extra_state_keys` name layers."""
_PREFIX = "base_model.model."
_PARTS = "lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
_TRAINING_ONLY = {"swift_type", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "model_key_mapping"}
"""SWIFT's settings that what is stored does not depend on. Others of its own change what the adapter computes."""


def swift_adapter(folder: Path) -> Path | None:
    """Return where the one adapter of a folder in SWIFT's form lies, None for a folder in another form."""
    found = [path.parent for path in sorted([*folder.glob(CONFIG), *folder.glob(f"*/{CONFIG}")])]
    adapters = [one for one in found if "swift_type" in _settings(one)]
    if (folder / CONFIG).is_file():
        adapters = [one for one in adapters if one == folder]
    if not adapters:
        return None
    if len(adapters) > 1:
        names = ", ".join(one.name for one in adapters)
        raise CheckpointError(f"{folder} holds several adapters: {names}", fix=f"choose one, such as {adapters[0]}")
    if (adapters[0].parent / _WHOLE_LAYERS).is_dir():
        raise CheckpointError(
            f"beside the adapter {adapters[0]} other layers were trained ({_WHOLE_LAYERS}), for which peft has no form",
            fix="merge it with SWIFT, where it was trained",
        )
    return adapters[0]


def peft_settings(adapter: Path) -> dict[str, Any]:
    """Return the content of peft's adapter_config.json for an adapter in SWIFT's form.

    Raises `CheckpointError` for one that is no LoRA, or whose settings peft's LoRA does not have.
    """
    settings = _settings(adapter)
    if settings["swift_type"] != "LORA":
        problem = f"{adapter} holds an adapter of SWIFT's type {settings['swift_type']}, not LoRA"
        raise CheckpointError(problem, fix="only LoRA can be turned into peft's form")
    of_peft = {field.name for field in fields(LoraConfig)}
    foreign = sorted(name for name in settings.keys() - of_peft - _TRAINING_ONLY if settings[name])
    if foreign:
        raise CheckpointError(
            f"{adapter} was trained with {', '.join(foreign)} of SWIFT, which peft's LoRA does not have",
            fix="merge it with SWIFT, where it was trained",
        )
    kept = {name: value for name, value in settings.items() if name in of_peft}
    return {**kept, "peft_type": "LORA", "task_type": "CAUSAL_LM"}


def write_peft_form(adapter: Path, target: Path) -> None:
    """Write an adapter in SWIFT's form into the folder `target` as peft does; values stay bit for bit."""
    settings = peft_settings(adapter)
    if not (adapter / WEIGHTS).is_file():
        raise CheckpointError(
            f"{adapter} holds no {WEIGHTS}",
            fix="only safetensors are read; pickled weights (adapter_model.bin) can run code: save it again with SWIFT",
        )
    tensors = {_peft_name(name, adapter.name): value for name, value in load_file(adapter / WEIGHTS).items()}
    (target / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})


def _peft_name(name: str, adapter: str) -> str:
    name = _PREFIX + name.removeprefix(_PREFIX)
    name = re.sub(rf"\.({_PARTS})\.{re.escape(adapter)}(?=\.|$)", r".\1", name)
    return re.sub(r"\.lora_magnitude_vector\.weight$", ".lora_magnitude_vector", name)


@contextmanager
def in_peft_form(folder: Path) -> Iterator[Path]:
    """Yield a folder that peft reads: `folder` itself, or for one in SWIFT's form a temporary one."""
    adapter = swift_adapter(folder)
    if adapter is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_peft_form(adapter, Path(temporary))
        try:
            yield Path(temporary)
        except CheckpointError as error:
            raise CheckpointError(error.problem.replace(temporary, str(adapter)), fix=error.fix) from error


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of an adapter; empty where nobody can read them, which peft's reader then says."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
