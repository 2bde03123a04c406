"""Tensors in few bits: groups of values that share a scale and a minimum, codes packed into bytes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack(values: Tensor, bits: int, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (codes, scale, minimum) of a tensor of any shape; value = minimum + code * scale.

    Codes are uint8 (bytes,), 8 / `bits` to a byte; scale and minimum are (groups,) float32.
    """
    groups = pad(values.float().flatten(), (0, -values.numel() % group_size)).view(-1, group_size)
    minimum, maximum = groups.aminmax(dim=1)
    scale = ((maximum - minimum) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).tiny)
    codes = ((groups - minimum[:, None]) / scale[:, None]).round().to(torch.uint8).flatten()
    codes = pad(codes, (0, -codes.numel() % (8 // bits))).view(-1, 8 // bits)
    return (codes << _shifts(bits, codes)).sum(dim=1, dtype=torch.uint8), scale, minimum


def unpack(codes: Tensor, scale: Tensor, minimum: Tensor, bits: int, group_size: int, shape: torch.Size) -> Tensor:
    """Return the values of `shape` that `pack` was given, rounded, in float32."""
    found = (codes[:, None] >> _shifts(bits, codes)) & (2**bits - 1)
    groups = found.flatten()[: scale.numel() * group_size].view(-1, group_size)
    values = torch.addcmul(minimum[:, None], groups.float(), scale[:, None]).flatten()
    return values[: shape.numel()].view(shape)


def _shifts(bits: int, codes: Tensor) -> Tensor:
    return torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
