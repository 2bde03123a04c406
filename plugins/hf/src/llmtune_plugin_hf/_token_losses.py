"""Cross-entropy of each token, a few rows of the logits at a time.

torch's own keeps the logits in float32, their log-softmax and two gradients of that size: 16 bytes for each logit of
a bf16 model, of which there are 150,000 for a token. Here the bf16 logits and their gradient are all there is.
N tokens, V words.
"""

from __future__ import annotations

from typing import Any

import torch

_AT_ONCE = 1 << 21
"""Logits that are held in float32 at a time: 8 MB; on a GPU 256."""


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return float32 losses (N,) of `logits` (N, V), 0 where `targets` (N,) is -100."""
    apply: Any = _TokenLosses.apply
    return apply(logits, targets)  # type: ignore[no-any-return]


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sums = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for rows in _slices(logits):
            sums[rows] = logits[rows].float().logsumexp(dim=-1)
        chosen = logits.gather(1, targets.clamp(min=0)[:, None]).squeeze(1)
        context.save_for_backward(logits, targets, sums)
        return (sums - chosen.float()).masked_fill_(targets == -100, 0.0)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """softmax(logits) - one_hot(targets), for each loss."""
        logits, targets, sums = context.saved_tensors
        weights = gradients[0].masked_fill(targets == -100, 0.0)
        found = torch.empty_like(logits)
        for rows in _slices(logits):
            shares = (logits[rows].float() - sums[rows, None]).exp_().mul_(weights[rows, None])
            shares.scatter_add_(1, targets[rows].clamp(min=0)[:, None], -weights[rows, None])
            found[rows] = shares
        return found, None


def _slices(logits: torch.Tensor) -> list[slice]:
    at_once = _AT_ONCE if logits.device.type == "cpu" else 32 * _AT_ONCE
    size = max(1, at_once // max(1, logits.shape[-1]))
    return [slice(start, start + size) for start in range(0, len(logits), size)]
