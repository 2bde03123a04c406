"""Tensors of adapters that are not peft's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtune.errors import CheckpointError


def fill_tensors(tensors: Mapping[str, Any], path: Path) -> None:
    """Copy the tensors of a safetensors file into those of a model; both must have the same names and shapes."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not complete ({path.name} is missing)", fix="take another checkpoint")
    stored = load_file(path)
    if {name: one.shape for name, one in stored.items()} != {name: one.shape for name, one in tensors.items()}:
        raise CheckpointError(
            f"what was trained in {path.parent} does not fit this base model",
            fix="choose the base model that it was trained on",
        )
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])
