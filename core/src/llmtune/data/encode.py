"""Encode rows with a template, many at once, counting what cannot be trained on.

Rows are encoded in chunks. The outcome of a chunk is stored under a name that is a hash of its rows, the
template, the tokenizer and the settings: what was encoded before is found again, by eager and streamed
runs alike. Chunks are encoded in threads, because fast tokenizers do their work outside of Python's lock.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from llmtune.config.environment import cache_folder
from llmtune.data.encoded import IGNORED, Chunk, EncodedRows, Outcome
from llmtune.data.report import DataReport
from llmtune.data.spool import Line
from llmtune.data.truncate import Limit, shortened
from llmtune.errors import DataError, OutputError
from llmtune.interfaces.template import Template
from llmtune.specs import Encoded, Row
from llmtune.template.thinking import thoughts_apart

CHUNK = 1000  # rows; enough for the tokenizer's batches, small enough to keep several in memory
_FORMAT = 3  # of the stored chunks


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Turns rows into samples with one template and one limit."""

    template: Template
    limit: Limit
    identity: tuple[str, ...] = ()
    """What else the ids depend on: the versions and files of plugins."""

    def outcome(self, row: Row) -> Outcome:
        """Encode one row."""
        return self.outcomes([row])[0]

    def outcomes(self, rows: Sequence[Row]) -> list[Outcome]:
        """Encode many rows."""
        apart = [_thoughts_apart(row) for row in rows]
        encoded = iter(self.template.encode_samples([row for row in apart if not isinstance(row, DataError)]))
        found = [one if isinstance(one, DataError) else next(encoded) for one in apart]
        return [self._outcome(row, one) for row, one in zip(rows, found, strict=True)]

    def _outcome(self, row: Row, encoded: list[Encoded] | DataError) -> Outcome:
        if isinstance(encoded, DataError):
            return Outcome(problem=encoded.problem)
        outcome = _of_all([self._fitting(row, one) for one in encoded])
        outcome.control_name = self._control_name(row)
        return outcome

    def _control_name(self, row: Row) -> str:
        """Return the first name of a control token that the row's texts hold, which stays text."""
        vocabulary = getattr(self.template, "vocabulary", None)
        if vocabulary is None or vocabulary.special_tokens_in_text:
            return ""
        said = [row.get("system") or "", *(message["content"] for message in row["messages"])]
        names = (vocabulary.control_name(text) for text in said)
        return next(filter(None, names), "")

    def _fitting(self, row: Row, encoded: Encoded) -> Outcome:
        length = len(encoded["input_ids"])
        samples = [encoded]
        if not self.limit.fits(length):
            is_text = len(row["messages"]) == 1
            samples = shortened(encoded, self.limit, self.template.closing_ids(), is_text=is_text)
            if not samples:
                detail = f"{length} tokens, --max_length is {self.limit.max_length}"
                return Outcome(length=length, problem=detail, kind="longer than --max_length")
        samples = [sample for sample in samples if any(label != IGNORED for label in sample["labels"])]
        return Outcome(samples=samples, length=length, problem="" if samples else "no target token is left")

    # --- the store --------------------------------------------------------------------------------

    def chunk(self, lines: Sequence[bytes]) -> Chunk:
        """Return the outcomes of rows (as JSON) from the store, encoding them where it has none."""
        path = self._path(lines)
        if not path.exists():
            outcomes = self.outcomes([json.loads(line) for line in lines])
            try:
                return Chunk.write(path, outcomes)
            except OSError as error:
                raise OutputError(
                    f"encoded rows cannot be stored in {path.parent}: {error.strerror}",
                    fix="free some space, or set LLMTUNE_CACHE to another folder",
                ) from error
        os.utime(path)  # when it was last used
        return Chunk(path)

    def _path(self, lines: Iterable[bytes]) -> Path:
        content = hashlib.blake2b(self._identity, digest_size=20)
        for line in lines:
            content.update(line + b"\n")
        name = content.hexdigest()
        return cache_folder() / "encoded" / name[:2] / f"{name}.arrow"

    @cached_property
    def _identity(self) -> bytes:
        kind = type(self.template)
        spec = getattr(self.template, "spec", None)
        own = [kind.__module__, kind.__qualname__, spec, getattr(self.template, "loss_scales", None)]
        own.append(getattr(getattr(self.template, "vocabulary", None), "special_tokens_in_text", False))
        parts = [_FORMAT, *own, asdict(self.limit), *self.identity]
        source = inspect.getsourcefile(kind)
        content = Path(source).read_bytes() if source else b""
        tokenizer = getattr(self.template, "tokenizer", None)
        return repr(parts).encode() + hashlib.blake2b(content).digest() + tokenizer_identity(tokenizer)

    def chunks(self, lines: Iterable[Line], *, workers: int = 1) -> Iterator[tuple[Chunk, list[str]]]:
        """Yield (chunk, sources of its rows) in order, encoding `workers` chunks at a time."""
        remaining = iter(lines)
        groups = iter(lambda: list(islice(remaining, CHUNK)), [])
        with ThreadPoolExecutor(workers) as pool:
            running: deque[tuple[Future[Chunk], list[str]]] = deque()
            for group in groups:
                running.append((pool.submit(self.chunk, [line for line, _ in group]), [source for _, source in group]))
                if len(running) > 2 * workers:
                    future, sources = running.popleft()
                    yield future.result(), sources
            for future, sources in running:
                yield future.result(), sources


def _of_all(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what became of a row that is several samples; those that cannot be used are left out where others stay."""
    if len(outcomes) == 1:
        return outcomes[0]
    samples = [sample for one in outcomes for sample in one.samples]
    problem = "" if samples else outcomes[0].problem
    length = sum(one.length for one in outcomes)
    return Outcome(samples=samples, length=length, problem=problem, kind=outcomes[0].kind if problem else "")


def _thoughts_apart(row: Row) -> Row | DataError:
    try:
        return thoughts_apart(row)
    except DataError as error:
        return error


def tokenizer_identity(tokenizer: Any) -> bytes:
    """Return a hash of everything that decides which ids a tokenizer gives."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(tokenizer)
    special = repr(sorted(getattr(tokenizer, "special_tokens_map", {}).items()))
    return hashlib.blake2b((content + special).encode()).digest()


def encode_rows(lines: Iterable[Line], encoder: Encoder, report: DataReport, *, workers: int = 1) -> EncodedRows:
    """Return the samples of all rows that can be trained on; the others are counted in `report`."""
    serial = os.environ.get("TOKENIZERS_PARALLELISM")  # each thread tokenises for itself
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        chunks = []
        for chunk, sources in encoder.chunks(lines, workers=workers):
            count(chunk, sources, report)
            chunks.append(chunk)
        return EncodedRows(chunks)
    finally:
        if serial is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = serial


def count(chunk: Chunk, sources: Sequence[str], report: DataReport) -> None:
    """Add the outcomes of a chunk to the report."""
    facts = chunk.facts()
    for fact, source in zip(facts, sources, strict=True):
        if fact["length"]:
            report.lengths.append(fact["length"])
        if fact["control_name"]:
            report.spelled_out(fact["control_name"], source)
        if fact["problem"]:
            report.drop(fact["problem"], source, kind=fact["kind"] or None)
    several = [number for number in Counter(chunk.rows.tolist()).values() if number > 1]
    report.parted += len(several)
    report.parts += sum(several)
    kept = int(chunk.lengths.sum())
    report.tokens += kept
    report.target_tokens += chunk.targets
    lost = sum(fact["length"] for fact in facts if not fact["problem"]) - kept
    report.truncated += _shortened_rows(chunk, facts) if lost else 0


def _shortened_rows(chunk: Chunk, facts: Sequence[dict[str, Any]]) -> int:
    """Return how many rows lost tokens: a row that was split has lost none."""
    import numpy as np

    kept = np.bincount(chunk.rows, weights=chunk.lengths, minlength=len(facts))
    return sum(bool(number < fact["length"]) for number, fact in zip(kept, facts, strict=True) if not fact["problem"])
