"""How much memory training a model takes: from its published size alone, or from its layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtune.interfaces.tuner import Tuner

_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([KMBT])", re.IGNORECASE)
_UNIT = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_ADAPTER = 0.002
"""Share of a LoRA of rank 8 on query, key and value: 0.0009 of a Llama of 7B, 0.0015 of a Qwen2 of 0.5B; rounded up."""
_BYTES = {"lora": 2.0 + 16 * _ADAPTER, "qlora": 0.57 + 16 * _ADAPTER, "full": 8.0}
"""Bytes for each parameter.

lora: base in bf16; adapter, its gradient and two moments of AdamW in float32. qlora: base in 4 bits with a scale
for 64 weights and embeddings in bf16 (Dettmers et al., arXiv:2305.14314). full: weights, gradients and two moments
in bf16.
"""


def parameters(size: str) -> int | None:
    """Return the number of parameters that a published size says ("135M", "57B-A14B", "8x7B"), None if it says none.

    Experts share attention, so "8x7B" is an upper bound.
    """
    found = _SIZE.match(size.strip())
    return None if found is None else int(int(found[1] or 1) * float(found[2]) * _UNIT[found[3].upper()])


def bytes_by_size(count: int) -> dict[str, int]:
    """Return bytes by way of training, for `count` parameters: weights, gradients and optimizer, not activations."""
    return {way: int(count * bytes_each) for way, bytes_each in _BYTES.items()}


def training_bytes(model: Any, tuner: Tuner, *, bits: int = 0) -> int:
    """Return bytes of weights, gradients and optimizer for a model that `tuner` prepared; not of activations.

    `bits` are those that linear layers are quantized to, with a scale of 8 bits for 64 weights; 0: not at all.
    """
    from torch import nn

    quantized = {
        id(module.weight)
        for module in model.modules()
        if bits and isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    }
    total, trained_size = 0.0, 4
    for parameter in model.parameters():
        size = parameter.element_size()
        if parameter.requires_grad:
            total += 2 * parameter.numel() * size  # with its gradient
            trained_size = size
        else:
            total += parameter.numel() * ((bits + 8 / 64) / 8 if id(parameter) in quantized else size)
    return int(total + tuner.optimizer_values(model) * trained_size)


def device_memory() -> tuple[int, str]:
    """Return (bytes, device) of what this machine trains on: its first GPU, else the RAM."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory, torch.cuda.get_device_name(0)
    import psutil

    return psutil.virtual_memory().total, "RAM"
