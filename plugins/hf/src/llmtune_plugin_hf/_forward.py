"""The forward pass of one micro-batch: its summed loss, computed only where there is a target.

B rows (1 without padding), T tokens, K positions that are kept, V words of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from llmtune_plugin_hf._sequence_parallel import SequenceParallel
from llmtune_plugin_hf._token_losses import token_losses
from llmtune_plugin_hf._varlen import VarlenAttention

_NOT_FOR_THE_MODEL = ("labels", "loss_weights", "keep", "lengths")


class Forward:
    """Calls a model with batches of `Collate`."""

    def __init__(self, base: Any, attention: VarlenAttention, device: torch.device, *, pin_memory: bool) -> None:
        self.attention, self.device, self.pin_memory = attention, device, pin_memory
        self.parallel: SequenceParallel = attention.parallel
        self.takes_logits_to_keep = "logits_to_keep" in inspect.signature(base.forward).parameters
        """Whether the model can skip its output head where nobody looks."""

    def samples_of(self, batch: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Enclose the forward pass and the backward pass, which may compute activations again."""
        return self.attention.over(batch.get("lengths"))

    def loss(
        self, model: Any, batch: Mapping[str, Any], measure: Literal["token", "sentence"] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the sum of weighted token losses; and (2,): how many predictions are right, of how many.

        Position t predicts token t + 1. The head runs on the K positions of `keep`, those before a target
        of any row: with V = 49k and half of the tokens trained, it is a large part of a small model's step
        (docs/performance.md). A rank that shares the sequence returns its part of both sums.
        """
        own = self._slice(batch)
        inside = batch["keep"][(batch["keep"] >= own.start) & (batch["keep"] < own.stop)]
        keep = self._move(inside)
        logits_BKV = self._logits(model, batch, self._move(inside - own.start))
        targets_BK = self._move(batch["labels"])[:, 1:][:, keep]
        losses = token_losses(logits_BKV.flatten(0, 1), targets_BK.flatten())
        if "loss_weights" in batch:
            losses = losses * self._move(batch["loss_weights"])[:, 1:][:, keep].flatten()
        if measure is None:
            return losses.sum(), None
        wrong_BK = (logits_BKV.detach().argmax(dim=-1) != targets_BK) & (targets_BK != -100)
        if measure == "token":
            return losses.sum(), _by_token(wrong_BK, targets_BK != -100)
        samples = _samples(batch)
        of_kept = self._move(samples[:, inside])
        return losses.sum(), self._by_sample(wrong_BK, targets_BK != -100, of_kept, int(samples.max()) + 1)

    @torch.no_grad()
    def logits(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the logits (B, T, V) of all positions, on the CPU."""
        with self.samples_of(batch):
            logits: torch.Tensor = model(**self._inputs(batch), use_cache=False).logits
            whole = self.parallel.gather(logits) if "lengths" in batch else logits
        return whole.cpu()

    def _logits(self, model: Any, batch: Mapping[str, Any], keep: torch.Tensor) -> torch.Tensor:
        inputs = self._inputs(batch)
        if self.takes_logits_to_keep:
            return model(**inputs, use_cache=False, logits_to_keep=keep).logits  # type: ignore[no-any-return]
        return model(**inputs, use_cache=False).logits[:, keep]  # type: ignore[no-any-return]

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        own = self._slice(batch)
        return {name: self._move(value[:, own]) for name, value in batch.items() if name not in _NOT_FOR_THE_MODEL}

    def _slice(self, batch: Mapping[str, Any]) -> slice:
        """Return the positions that this rank computes: all, unless it shares the sequence."""
        tokens = batch["labels"].shape[1]
        return self.parallel.slice(tokens) if "lengths" in batch else slice(0, tokens)

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.pin_memory:
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _by_sample(self, wrong: torch.Tensor, targets: torch.Tensor, samples: torch.Tensor, count: int) -> torch.Tensor:
        """Count samples: one is right when all of its targets are, on whatever ranks."""
        found = torch.zeros(2, count, device=wrong.device)
        for row, one in zip(found, (wrong, targets), strict=True):
            row.index_add_(0, samples.flatten(), one.flatten().float())
        wrongs, trained = self.parallel.total(found)
        right = torch.stack([((trained > 0) & (wrongs == 0)).sum(), (trained > 0).sum()]).double()
        return right if self.parallel.place == 0 else torch.zeros_like(right)


def _samples(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return the number of the sample (B, T) that each position belongs to."""
    rows, length = batch["labels"].shape
    if lengths := batch.get("lengths"):
        return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    return torch.arange(rows)[:, None].expand(rows, length)


def _by_token(wrong: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.stack([targets.sum() - wrong.sum(), targets.sum()]).double()


def eval_mode(model: Any) -> None:
    """Switch dropout off, but not in bitsandbytes' layers: they would repack their weights and could not be trained."""
    model.eval()
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            module.train()
