"""Several ranks that compute one sequence: each a slice of its tokens, in attention some heads of all tokens.

Reference: Jacobs et al., DeepSpeed Ulysses (arXiv:2309.14509). P ranks share a sequence of T tokens, a multiple
of P; each has t = T / P of them. H heads of D values; a rank attends with h of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

from llmtune.api import ranks


class SequenceParallel:
    """The ranks that have the same rows as this one: `size` of them, one after the other."""

    def __init__(self, size: int = 1) -> None:
        self.size, self.place = size, ranks.number() % size
        self.readers, self.reader = ranks.count() // size, ranks.number() // size
        """So many groups have rows of their own; the number of this one."""
        self._group: Any = None
        for first in range(0, ranks.count() if size > 1 else 0, size):  # every rank makes all of the groups
            group = distributed.new_group(list(range(first, first + size)))
            self._group = group if first <= ranks.number() < first + size else self._group

    def slice(self, tokens: int) -> slice:
        """Return which of a sequence's tokens are this rank's."""
        each = tokens // self.size
        return slice(self.place * each, (self.place + 1) * each)

    def to_heads(self, slices: torch.Tensor) -> torch.Tensor:
        """Return (1, h, T, D), some heads of all tokens, of (1, H, t, D), all heads of this rank's tokens."""
        told = (self._group, self._heads(slices.shape[1]), self.place)
        heads: torch.Tensor = _Move.apply(slices, _to_heads, _to_slices, *told)  # type: ignore[no-untyped-call]
        return heads

    def to_slices(self, heads: torch.Tensor, count: int) -> torch.Tensor:
        """Undo `to_heads`; `count` is the number H of heads."""
        told = (self._group, self._heads(count), self.place)
        slices: torch.Tensor = _Move.apply(heads, _to_slices, _to_heads, *told)  # type: ignore[no-untyped-call]
        return slices

    def gather(self, slices: torch.Tensor) -> torch.Tensor:
        """Return (B, T, ...) of every rank's (B, t, ...); without gradients."""
        if self.size == 1:
            return slices
        found = [torch.empty_like(slices) for _ in range(self.size)]
        distributed.all_gather(found, slices.contiguous(), group=self._group)
        return torch.cat(found, dim=1)

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the sums over the ranks of the group."""
        if self.size > 1:
            distributed.all_reduce(numbers, group=self._group)
        return numbers

    def all(self, holds: bool, device: torch.device) -> bool:
        """Return whether something holds on every rank of the group."""
        return holds if self.size == 1 else int(self.total(torch.tensor(int(holds), device=device))) == self.size

    def _heads(self, count: int) -> list[int]:
        """Return how many of `count` heads each rank attends with; numbers that do not divide are shared unevenly."""
        return [count // self.size + (place < count % self.size) for place in range(self.size)]


class _Move(torch.autograd.Function):
    """Moves a tensor `there`, and its gradient `back`."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, there: Any, back: Any, *told: Any) -> torch.Tensor:
        ctx.back, ctx.told = back, told
        moved: torch.Tensor = there(tensor, *told)
        return moved

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.back(gradient, *ctx.told), None, None, *(None for _ in ctx.told)


def _to_heads(slices: torch.Tensor, group: Any, heads: list[int], place: int) -> torch.Tensor:
    own, (tokens, width), ranks_of_group = heads[place], slices.shape[2:], len(heads)
    received = slices.new_empty(ranks_of_group * own, tokens, width)
    distributed.all_to_all_single(received, slices[0].contiguous(), [own] * ranks_of_group, heads, group=group)
    return received.view(ranks_of_group, own, tokens, width).transpose(0, 1).reshape(1, own, -1, width)


def _to_slices(heads: torch.Tensor, group: Any, counts: list[int], place: int) -> torch.Tensor:
    (own, width), ranks_of_group = (heads.shape[1], heads.shape[3]), len(counts)
    sent = heads[0].reshape(own, ranks_of_group, -1, width).transpose(0, 1).reshape(ranks_of_group * own, -1, width)
    received = heads.new_empty(sum(counts), sent.shape[1], width)
    distributed.all_to_all_single(received, sent, counts, [own] * ranks_of_group, group=group)
    return received[None]
