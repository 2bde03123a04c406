"""How the rows of an optimizer step become forward passes: dealt out to ranks, cut into micro-batches.

The step is the unit that a user chooses. How it is cut changes its gradients by rounding alone, because
the loss is divided by the target tokens of the whole step.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass


def deal(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Return `count` groups of row numbers with about equally many tokens, each in the rows' order.

    Longest row first, each to the group with the fewest tokens (Graham, 1969: at most 4/3 of the best).
    Depends on nothing but the arguments, so that every rank finds the same groups.
    """
    groups: list[list[int]] = [[] for _ in range(count)]
    fewest = [(0, number) for number in range(count)]
    for row in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        tokens, number = fewest[0]
        groups[number].append(row)
        heapq.heapreplace(fewest, (tokens + lengths[row], number))
    return [sorted(group) for group in groups]


@dataclass(frozen=True)
class PaddingFree:
    """Rows one after the other in one sequence of at most `tokens` tokens; a longer row is alone."""

    tokens: int

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return as few micro-batches as fit, of about equal size, the smallest last."""
        count = min(max(1, math.ceil(sum(lengths) / self.tokens)), len(lengths))
        while any(len(part) > 1 and _tokens(part, lengths) > self.tokens for part in deal(lengths, count)):
            count += 1
        return sorted(filter(None, deal(lengths, count)), key=lambda part: -_tokens(part, lengths))

    def smaller(self, lengths: Sequence[int]) -> PaddingFree | None:
        """Return what to try when a step of these rows did not fit; None when every row was alone."""
        several = [_tokens(part, lengths) for part in self.cut(lengths) if len(part) > 1]
        return PaddingFree(max(several) // 2) if several else None

    def __str__(self) -> str:
        return f"up to {self.tokens} tokens, without padding"


@dataclass(frozen=True)
class Padded:
    """`rows` rows of about equal length, padded to the longest of them."""

    rows: int

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return micro-batches, the longest rows first."""
        order = sorted(range(len(lengths)), key=lambda one: (-lengths[one], one))
        return [sorted(order[start : start + self.rows]) for start in range(0, len(order), self.rows)]

    def smaller(self, lengths: Sequence[int]) -> Padded | None:
        """Return what to try when a step of these rows did not fit; None when every row was alone."""
        rows = min(self.rows, len(lengths)) // 2
        return Padded(rows) if rows else None

    def __str__(self) -> str:
        return f"{self.rows} rows, padded"


MicroBatches = PaddingFree | Padded


def _tokens(rows: Sequence[int], lengths: Sequence[int]) -> int:
    return sum(lengths[row] for row in rows)
