"""Which rows make up each optimizer step, and which of them each rank has."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Sampler

from llmtune.api import Encoded, Stream, deal


@dataclass(frozen=True)
class Step:
    """One rank's rows of one optimizer step; perhaps none."""

    rows: Sequence[Encoded]
    numbers: Sequence[int] = ()
    """Their places among all rows; nothing where they come from a stream."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row["input_ids"]) for row in self.rows]


class Rows(Dataset[Step]):
    """Rows by number, those of a step at once."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: Sequence[int]) -> Step:
        return Step([self.rows[number] for number in numbers], numbers)


class RankSteps(Sampler[list[int]]):
    """The rows of one rank, step after step: each row of an epoch exactly once, on one of the ranks.

    The rows of a step are the same whatever the number of ranks. Where their lengths are known they are
    dealt out so that ranks have about equally many tokens, else so that they have equally many rows.
    """

    def __init__(
        self,
        rows: int,
        *,
        size: int,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | None = None,
        order: Callable[[], Sequence[int]] | None = None,
    ) -> None:
        self.rows, self.size, self.rank, self.world_size = rows, size, rank, world_size
        """`size` rows of all ranks together make a step; the last one of an epoch may have fewer."""
        self.lengths = lengths
        self.order = order
        """Called at the start of an epoch; None is the order of the rows."""

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order() if self.order else range(self.rows)
        for start in range(0, self.rows, self.size):
            together = order[start : min(start + self.size, self.rows)]
            lengths = [1 if self.lengths is None else int(self.lengths[number]) for number in together]
            yield [together[place] for place in deal(lengths, self.world_size)[self.rank]]


class StreamSteps(IterableDataset[Step]):
    """The steps of one rank from a stream, from step `start` on; `size` as for `RankSteps`."""

    def __init__(self, stream: Stream, *, size: int, rank: int, world_size: int, start: int) -> None:
        self.stream = stream
        self.place = {"size": size, "rank": rank, "world_size": world_size, "start": start}

    def __iter__(self) -> Iterator[Step]:
        return map(Step, self.stream.steps(**self.place))


def as_it_is(step: Any) -> Any:
    """For DataLoaders: rows become tensors once it is known how a step is cut."""
    return step


def shuffled(rows: int, seed: int) -> list[int]:
    """Return the row numbers in random order, the same on every rank."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Return the row numbers by descending length (--test_oom_error)."""
    return sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))


def leave_ctrl_c_to_the_loop(worker: int) -> None:
    """For DataLoader workers: Ctrl-C reaches every process of a terminal, and one that dies ends the run unsaved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
