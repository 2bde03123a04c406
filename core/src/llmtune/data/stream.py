"""Training data of any length: read, encoded and mixed while the model trains.

The order of the samples is fixed by the data and the seed, whatever the number of processes: rows in the
order of the files become chunks (the same that an eager run stores), samples of chunks go through a buffer
that mixes their order, and with packing through windows that are packed. What moves through all of this
are references; a sample is read from its chunk when its batch is made. So a resumed run can go through
what was trained on already without reading it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice

from llmtune.data.encode import Encoder
from llmtune.data.encode import count as count_outcomes
from llmtune.data.encoded import Chunk
from llmtune.data.micro_batches import deal
from llmtune.data.packing import joined, pack
from llmtune.data.report import DataReport
from llmtune.data.spool import Line
from llmtune.errors import DataError
from llmtune.specs import Encoded

_FIRST = 1000  # samples in the buffer before the first is given away: filling it all would make training wait
_WINDOW = 4096  # samples that are packed together

Reference = tuple[Chunk, int, str]
"""A sample of a chunk, and where its row came from."""


@dataclass(kw_only=True)
class Stream:
    """An endless sequence of samples, or of packs of samples. Every pass over the data is mixed anew."""

    lines: Callable[[], Iterator[Line]]
    """Starts to read the training rows, in order."""
    encoder: Encoder
    report: DataReport
    max_dropped_ratio: float = 1.0
    buffer_size: int = 16384
    seed: int = 42
    pack_to: int | None = None
    """Length of packs; None does not pack."""
    workers: int = 1
    passes: int = field(default=0, init=False)
    """Passes over the data that are complete."""

    def steps(self, size: int, *, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[list[Encoded]]:
        """Yield this rank's samples of each step; `size` samples make a step on all ranks. `start` are skipped.

        The samples of a step are the same for any number of ranks, which get about equally many tokens.
        """
        items = self.items()
        next(islice(items, start * size, start * size), None)
        while True:
            together = list(islice(items, size))
            lengths = [sum(int(chunk.lengths[number]) for chunk, number, _ in item) for item in together]
            yield [_read(together[place]) for place in deal(lengths, world_size)[rank]]

    def items(self) -> Iterator[list[Reference]]:
        """Yield the references of each sample, or of each pack, without an end."""
        for epoch in count():
            seed = self.seed + epoch
            mixed = shuffled(self._references(first=epoch == 0), self.buffer_size, seed)
            items = self._packs(mixed, seed) if self.pack_to else ([one] for one in mixed)
            first = next(items, None)
            if first is None:
                raise DataError("no row is left to train on", fix="\n  ".join(self.report.lines()))
            yield from chain([first], items)
            self.passes += 1

    def _references(self, *, first: bool) -> Iterator[Reference]:
        """Yield each sample in the order of the files; only the first pass is counted."""
        report = self.report if first else DataReport()
        for chunk, sources in self.encoder.chunks(self.lines(), workers=self.workers):
            count_outcomes(chunk, sources, report)
            if first:
                report.train += len(chunk)
                report.check_dropped(self.max_dropped_ratio)
            yield from ((chunk, number, sources[row]) for number, row in enumerate(chunk.rows.tolist()))

    def _packs(self, references: Iterable[Reference], seed: int) -> Iterator[list[Reference]]:
        remaining = iter(references)
        for number in count():
            window = list(islice(remaining, _WINDOW))
            if not window:
                return
            lengths = [int(chunk.lengths[place]) for chunk, place, _ in window]
            packs = pack(lengths, self.pack_to or 0)
            random.Random(f"{seed} {number}").shuffle(packs)  # best-fit puts full packs first
            yield from ([window[place] for place in one] for one in packs)


def _read(references: Sequence[Reference]) -> Encoded:
    samples = [chunk.sample(number) for chunk, number, _ in references]
    together = samples[0] if len(samples) == 1 else joined(samples)
    together["sources"] = [source for _, _, source in references]
    return together


def shuffled(items: Iterable[Reference], size: int, seed: int) -> Iterator[Reference]:
    """Mix the order with a buffer of `size` items, which fills up while the first ones are given away."""
    generator, remaining, buffer = random.Random(seed), iter(items), []
    buffer = list(islice(remaining, min(_FIRST, size)))
    while buffer:
        number = generator.randrange(len(buffer))
        buffer[number], buffer[-1] = buffer[-1], buffer[number]
        yield buffer.pop()
        buffer += islice(remaining, min(2, size - len(buffer)))


def interleaved(
    sources: Sequence[Callable[[], Iterator[Line]]], weights: Sequence[float], *, until: str, seed: int
) -> Iterator[Line]:
    """Yield from sources drawn with probability `weights`, until the first (or the last) of them has ended."""
    generator = random.Random(seed)
    running = [source() for source in sources]
    ended = [False] * len(sources)
    while True:
        (number,) = generator.choices(range(len(sources)), weights)
        line = next(running[number], None)
        if line is None:
            ended[number] = True
            if until == "first_exhausted" or all(ended):
                return
            running[number] = sources[number]()
            line = next(running[number], None)
            if line is None:
                return
        yield line
