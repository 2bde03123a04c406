"""Causal attention of one short sample as its formula says, for CPUs.

The bf16 products run on a CPU's matrix units; sdpa's backward pass does not (docs/performance.md).
H heads, K heads of keys and values, G = H / K, T tokens, D head size.
"""

from __future__ import annotations

from typing import Any

import torch


def short_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return (1, H, T, D) of `query` (1, H, T, D), `key` and `value` (1, K, T, D).

    `hidden` (T, T), float32, is added to the scores: -inf where a token does not look. The softmax is in float32;
    kept for the backward pass is the result of it, in the type of the inputs.
    """
    apply: Any = _ShortAttention.apply
    return apply(query, key, value, hidden, scale)  # type: ignore[no-any-return]


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        hidden: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        heads, length = key.shape[1], query.shape[2]
        q = query.reshape(heads, -1, query.shape[-1])  # (K, G T, D): heads that share keys, one after the other
        k, v = key[0], value[0]
        scores = (q @ k.transpose(1, 2)).view(-1, length, length)
        weights = torch.add(hidden, scores, alpha=scale).softmax(dim=-1).to(value.dtype).view(heads, -1, length)
        output = weights @ v
        context.save_for_backward(q, k, v, weights, output)
        context.scale = scale
        return output.view(1, query.shape[1], length, -1)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights, output = context.saved_tensors
        gradient = gradients[0].reshape(output.shape)
        of_v = weights.transpose(1, 2) @ gradient
        mean = (gradient.float() * output.float()).sum(dim=-1, keepdim=True)  # of the softmax's gradient
        of_scores = ((gradient @ v.transpose(1, 2)).float() - mean).mul_(weights).mul_(context.scale).to(q.dtype)
        of_q, of_k = of_scores @ k, of_scores.transpose(1, 2) @ q
        return of_q.view(gradients[0].shape[:-1] + q.shape[-1:]), of_k[None], of_v[None], None, None
