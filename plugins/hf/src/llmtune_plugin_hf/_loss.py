"""The token loss, computed only where there is a target."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn import functional as F


def takes_logits_to_keep(model: Any) -> bool:
    """Whether the model's forward can skip the output head where nobody looks."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def summed_loss(model: Any, base: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (sum of weighted token losses, number of target tokens) of one batch.

    `inputs` holds `input_ids` (B, T), `labels` (B, T; -100 is not trained) and perhaps
    `attention_mask` and `loss_weights` (B, T). Position t predicts token t + 1. The head runs on the
    K positions of `keep`, those before a target of any row: with V = 49k and half of the tokens trained,
    it is a large part of a small model's step (docs/performance.md).
    """
    inputs = dict(inputs)
    targets_BT = inputs.pop("labels")[:, 1:]
    weights, keep_K = inputs.pop("loss_weights", None), inputs.pop("keep")
    if takes_logits_to_keep(base):
        logits_BKV = model(**inputs, use_cache=False, logits_to_keep=keep_K).logits
    else:
        keep_K = torch.arange(targets_BT.shape[1], device=targets_BT.device)
        logits_BKV = model(**inputs, use_cache=False).logits[:, :-1]
    targets = targets_BT[:, keep_K].reshape(-1)
    losses = F.cross_entropy(logits_BKV.float().flatten(0, 1), targets, ignore_index=-100, reduction="none")
    if weights is not None:
        losses = losses * weights[:, 1:][:, keep_K].reshape(-1)
    return losses.sum(), (targets != -100).sum()
