"""Put encoded rows together as the input of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from llmtune.api import Encoded, joined

_IGNORED = -100

EMPTY: Encoded = {"input_ids": [0, 0], "labels": [_IGNORED, _IGNORED]}
"""A row without a target, for a rank that has fewer micro-batches than another one and must not lag behind."""


class Collate:
    """Makes int64 `input_ids` and `labels` (B, T), and what else the model or the loss needs.

    Padding-free: B is 1, samples follow each other, `position_ids` (1, T) begin again at 0 with each, and
    `lengths` lists their lengths. Padded: rows are padded on the right, with an `attention_mask` (B, T)
    where lengths differ; packs have `position_ids` instead, and their padding is a sample of its own.

    `keep` (K,) holds the positions before a target of any row. It is made here, on the CPU, because
    finding it on a GPU would make every forward pass wait for the one before.

    Ranks that share a sequence need T to be a multiple of their number: of `multiple_of`.
    """

    def __init__(self, pad_token_id: int, *, padding_free: bool, multiple_of: int = 1) -> None:
        self.pad_token_id, self.padding_free, self.multiple_of = pad_token_id, padding_free, multiple_of

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        rows = rows or [EMPTY]
        batch = self._joined(rows) if self.padding_free else self._padded(rows)
        batch["keep"] = (batch["labels"][:, 1:] != _IGNORED).any(dim=0).nonzero().squeeze(-1)
        return batch

    def _joined(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        if missing := -sum(len(row["input_ids"]) for row in rows) % self.multiple_of:
            rows = [*rows, {"input_ids": [self.pad_token_id] * missing, "labels": [_IGNORED] * missing}]
        together = joined(rows)
        lengths = list(chain.from_iterable(row.get("lengths") or [len(row["input_ids"])] for row in rows))
        batch: dict[str, Any] = {
            "input_ids": torch.tensor([together["input_ids"]]),
            "labels": torch.tensor([together["labels"]]),
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "lengths": lengths,
        }
        if "loss_weights" in together:
            batch["loss_weights"] = torch.tensor([together["loss_weights"]])
        return batch

    def _padded(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        lengths = [len(row["input_ids"]) for row in rows]
        batch: dict[str, Any] = {
            "input_ids": _padded([row["input_ids"] for row in rows], self.pad_token_id),
            "labels": _padded([row["labels"] for row in rows], _IGNORED),
        }
        if any("lengths" in row for row in rows):
            batch["position_ids"] = torch.tensor([_positions(row, max(lengths)) for row in rows])
        elif min(lengths) < max(lengths):
            batch["attention_mask"] = _padded([[1] * length for length in lengths], 0)
        if any("loss_weights" in row for row in rows):
            weights = [row.get("loss_weights") or [1.0] * length for row, length in zip(rows, lengths, strict=True)]
            batch["loss_weights"] = _padded(weights, 0.0)
        return batch


def targets(row: Encoded) -> int:
    """Return how many tokens of a row are trained on; the first one has none before it that could predict it."""
    return sum(label != _IGNORED for label in row["labels"][1:])


def _positions(row: Encoded, length: int) -> list[int]:
    """Return the place of each token in its own sample."""
    samples = row.get("lengths") or [len(row["input_ids"])]
    padding = length - len(row["input_ids"])
    return [place for size in (*samples, padding) for place in range(size)]


def _padded(lists: Sequence[Sequence[Any]], value: float) -> torch.Tensor:
    longest = max(map(len, lists))
    return torch.tensor([[*items, *[value] * (longest - len(items))] for items in lists])
