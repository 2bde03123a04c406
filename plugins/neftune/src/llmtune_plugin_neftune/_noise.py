"""Noise on embeddings while training. B sequences of T tokens, D values per token."""

from __future__ import annotations

from typing import Any

import torch


def add_noise(model: Any, alpha: float) -> None:
    """Let the embeddings of `model` return values with noise; the backbone tells which tokens are one sample."""
    embeddings = model.get_input_embeddings()
    given: dict[str, Any] = {}

    def remember(module: Any, arguments: Any, named: dict[str, Any]) -> None:
        given.update({name: named.get(name) for name in ("position_ids", "attention_mask")})

    def noisy(module: Any, arguments: Any, embedded: torch.Tensor) -> torch.Tensor:  # (B, T, D)
        if not module.training:
            return embedded
        lengths = sample_lengths(embedded, given["position_ids"], given["attention_mask"])
        largest = alpha / (lengths * embedded.shape[-1]).sqrt()[..., None]
        noise = torch.empty_like(embedded, dtype=torch.float32).uniform_(-1, 1)
        return embedded + (noise * largest).to(embedded.dtype)

    # Not of `model` itself: adapters around it call its `forward`, without hooks.
    model.base_model.register_forward_pre_hook(remember, with_kwargs=True)
    embeddings.register_forward_hook(noisy)


def sample_lengths(
    embedded: torch.Tensor, position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the length (B, T) of the sample that each token belongs to, float32.

    A sample begins where `position_ids` (B, T) is 0; the mask (B, T) is 0 on padding. Without both,
    each sequence is a sample.
    """
    rows, tokens = embedded.shape[:2]
    if position_ids is not None and position_ids.dim() == 2:
        numbers = (position_ids == 0).cumsum(dim=1)
        counts = torch.zeros(rows, tokens + 1, device=embedded.device)
        counts.scatter_add_(1, numbers, torch.ones_like(numbers, dtype=torch.float32))
        return counts.gather(1, numbers)
    if attention_mask is not None and attention_mask.dim() == 2:
        return attention_mask.sum(dim=1, keepdim=True).float().clamp(min=1).expand(rows, tokens)
    return torch.full((rows, tokens), float(tokens), device=embedded.device)
