"""Block-diagonal matrices in plain torch, in place of an extension that peft compiles while it runs.

Where that cannot be compiled (no CUDA, no nvcc), peft 0.21 sets `boft_n_butterfly_factor` to 1 whatever was asked.
"""

from __future__ import annotations

import torch
from peft.tuners.boft import layer


class BlockDiagonal:
    """Takes the place of peft's `FastBlockDiag`, which has one method of that name."""

    @staticmethod
    def apply(blocks: torch.Tensor) -> torch.Tensor:
        """Return blocks (factors, count, b, b) as matrices (factors, count * b, count * b)."""
        factors, count, size, _ = blocks.shape
        spread = torch.einsum("fcij,cd->fcidj", blocks, torch.eye(count, dtype=blocks.dtype, device=blocks.device))
        return spread.reshape(factors, count * size, count * size)


def use_plain_torch() -> None:
    """Let peft's layers use `BlockDiagonal`."""
    layer.get_fbd_cuda = lambda: True
    layer.FastBlockDiag = BlockDiagonal
