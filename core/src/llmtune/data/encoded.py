"""Encoded rows: in Arrow files, read by number."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from llmtune.specs import Encoded

IGNORED = -100
Numbers = npt.NDArray[Any]


@dataclass(kw_only=True)
class Outcome:
    """What became of one row: samples to train on, or the reason why there is none."""

    samples: list[Encoded] = field(default_factory=list)
    length: int = 0
    """Tokens before anything was cut off."""
    problem: str = ""
    kind: str = ""
    """Groups problems that differ in detail; empty means the problem itself."""
    control_name: str = ""
    """A control token of the model whose name stands in a text of the row, as which it is trained."""


@dataclass
class Chunk:
    """The outcomes of some consecutive rows, in one Arrow file.

    What is kept in memory is where each sample begins. Samples are read from the file, not mapped: neither
    memory nor open files grow with the number of chunks.
    """

    path: Path

    @staticmethod
    def write(path: Path, outcomes: Sequence[Outcome]) -> Chunk:
        """Store outcomes; a reader never sees half a file."""
        import pyarrow as pa

        samples = [(number, sample) for number, one in enumerate(outcomes) for sample in one.samples]
        ids, trained, targets = _tokens([sample for _, sample in samples])
        table = pa.table(
            {
                "row": pa.array([number for number, _ in samples], pa.int32()),
                "targets": pa.array(targets, pa.int32()),
                "input_ids": ids,
                "trained": trained,
                "loss_weights": pa.array(
                    [sample.get("loss_weights", []) for _, sample in samples], pa.list_(pa.float32())
                ),
            }
        )
        facts = pa.table(
            {
                "length": pa.array([one.length for one in outcomes], pa.int32()),
                "problem": pa.array([one.problem for one in outcomes], pa.string()),
                "kind": pa.array([one.kind for one in outcomes], pa.string()),
                "control_name": pa.array([one.control_name for one in outcomes], pa.string()),
            }
        )
        partial = path.with_name(f".{path.name}.{os.getpid()}.{id(outcomes)}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for one in (facts, table):
                with pa.ipc.new_stream(file, one.schema) as stream:
                    stream.write_table(one)
        partial.replace(path)
        return Chunk(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # another process reads the file itself

    def _tables(self) -> tuple[Any, Any, int]:
        """Return (facts, samples, address of the file's first byte), all mapped."""
        import pyarrow as pa

        whole = pa.memory_map(str(self.path)).read_buffer()
        reader = pa.BufferReader(whole)
        facts, samples = (pa.ipc.open_stream(reader).read_all() for _ in range(2))
        return facts, samples, whole.address

    def facts(self) -> list[dict[str, Any]]:
        """Return length, problem and kind of each row."""
        listed: list[dict[str, Any]] = self._tables()[0].to_pylist()
        return listed

    @cached_property
    def _index(self) -> dict[str, Any]:
        """Return where things are: per list column the samples' offsets, and the byte where its values begin."""
        _, samples, address = self._tables()
        index: dict[str, Any] = {"row": np.array(samples.column("row")), "targets": np.array(samples.column("targets"))}
        for name in _LISTS:
            column = samples.column(name)
            if len(column):
                lists = column.chunk(0)  # a chunk is one record batch
                buffer = lists.values.buffers()[1]
                start = buffer.address - address if buffer is not None else 0
                index[name] = (np.array(lists.offsets), start)
        return index

    def __len__(self) -> int:
        return len(self._index["row"])

    @property
    def rows(self) -> Numbers:
        """The row of each sample, counted from the chunk's first."""
        return np.asarray(self._index["row"])

    @property
    def lengths(self) -> Numbers:
        """Tokens of each sample."""
        return np.diff(self._index["input_ids"][0]) if len(self) else np.empty(0, dtype=np.int64)

    @property
    def targets(self) -> int:
        """Tokens that are trained on."""
        return int(self._index["targets"].sum())

    def sample(self, number: int) -> Encoded:
        """Return one sample."""
        with self.path.open("rb", buffering=0) as file:
            ids, trained, weights = (self._values(file.fileno(), name, number, kind) for name, kind in _LISTS.items())
        sample: Encoded = {"input_ids": ids.tolist(), "labels": np.where(trained, ids, IGNORED).tolist()}
        if len(weights):
            sample["loss_weights"] = weights.tolist()
        return sample

    def _values(self, file: int, name: str, number: int, kind: Any) -> Numbers:
        offsets, start = self._index[name]
        first, last = int(offsets[number]), int(offsets[number + 1])
        size = np.dtype(kind).itemsize
        if first == last:  # also where no sample has such values: then they are nowhere in the file
            return np.empty(0, dtype=kind)
        return np.frombuffer(os.pread(file, (last - first) * size, start + first * size), dtype=kind)


_LISTS = {"input_ids": np.int32, "trained": np.uint8, "loss_weights": np.float32}


def _tokens(samples: Sequence[Encoded]) -> tuple[Any, Any, list[int]]:
    """Return ids and training masks as Arrow lists, and the number of trained tokens of each sample."""
    import pyarrow as pa

    offsets = np.cumsum([0, *(len(sample["input_ids"]) for sample in samples)]).astype(np.int32)
    ids, trained = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.uint8)
    targets = []
    for start, end, sample in zip(offsets, offsets[1:], samples, strict=False):
        ids[start:end] = sample["input_ids"]
        trained[start:end] = np.array(sample["labels"], dtype=np.int32) != IGNORED
        targets.append(int(trained[start:end].sum()))
    lists = (pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)) for values in (ids, trained))
    return *lists, targets


class EncodedRows(Sequence[Encoded]):
    """The samples of several chunks, one after the other."""

    def __init__(self, chunks: Sequence[Chunk] = ()) -> None:
        self.chunks = list(chunks)
        counts = [len(chunk) for chunk in self.chunks]
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.chunks[chunk].sample(number - int(self._starts[chunk]))

    def __iter__(self) -> Iterator[Encoded]:
        return (chunk.sample(number) for chunk in self.chunks for number in range(len(chunk)))

    def row_of(self, number: int) -> tuple[int, int]:
        """Return (chunk, row of that chunk) that a sample was made of."""
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return chunk, int(self.chunks[chunk].rows[number - int(self._starts[chunk])])

    @property
    def lengths(self) -> Numbers:
        """Tokens of each sample."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(chunk.lengths for chunk in self.chunks)])
