"""The moments of Adam in an optimizer's state, in 32 bits or in 8."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmtune.api import UsageError

_BLOCK = 256
_SMALLEST = 4096
"""bitsandbytes keeps smaller tensors in 32 bits as well: norms suffer most and save least."""


class Moments:
    """Keeps moments as they are."""

    def read(self, state: dict[str, Any], name: str, like: Tensor) -> Tensor:
        """Return a moment, zero at first; it may be changed in place before `write`."""
        return state[name] if name in state else torch.zeros_like(like)

    def write(self, state: dict[str, Any], name: str, moment: Tensor) -> None:
        state[name] = moment


class EightBitMoments(Moments):
    """Keeps moments in 8 bits, with a scale for each block (Dettmers et al., arXiv:2110.02861)."""

    def __init__(self) -> None:
        try:
            from bitsandbytes import functional
        except ImportError as error:
            raise UsageError(
                "--optim adamw_8bit needs bitsandbytes, which is not installed", fix="pip install bitsandbytes"
            ) from error
        self.bitsandbytes = functional
        self.codes = {
            "exp_avg": functional.create_dynamic_map(signed=True),
            "exp_avg_sq": functional.create_dynamic_map(signed=False),
        }

    def read(self, state: dict[str, Any], name: str, like: Tensor) -> Tensor:
        if f"{name}_scale" not in state:
            return super().read(state, name, like)
        code = self.codes[name].to(like.device)
        found: Tensor = self.bitsandbytes.dequantize_blockwise(
            state[name], absmax=state[f"{name}_scale"], code=code, blocksize=_BLOCK
        )
        return found

    def write(self, state: dict[str, Any], name: str, moment: Tensor) -> None:
        if moment.numel() < _SMALLEST:
            super().write(state, name, moment)
        else:
            code = self.codes[name].to(moment.device)
            state[name], scales = self.bitsandbytes.quantize_blockwise(moment.float(), code=code, blocksize=_BLOCK)
            state[f"{name}_scale"] = scales.absmax
