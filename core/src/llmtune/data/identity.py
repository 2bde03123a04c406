"""What a run began with, row by row, so that going on with other data is refused and not just different."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

from llmtune.data.spool import Line
from llmtune.errors import OutputError, UsageError

FILE = "data_rows.bin"
"""In the run folder: a line of JSON (the tokenizer, the base's files), then 8 bytes of each row, in the run's order."""

_SIZE, _EVERY, _SAMPLE = 8, 1000, 1 << 16
_AGAIN = "give what the run began with, or add --resume_only_model true for a new run from its weights"


def weights_identity(folder: Path | None) -> dict[str, list[Any]]:
    """Return name -> [bytes, hash of its beginning, middle and end] of the files with a model's weights."""
    files = sorted(folder.glob("*.safetensors")) if folder else []
    return {path.name: [path.stat().st_size, _sampled(path)] for path in files}


def _sampled(path: Path) -> str:
    size, found = path.stat().st_size, hashlib.blake2b(digest_size=_SIZE)
    with path.open("rb") as file:
        for place in (0, size // 2, max(0, size - _SAMPLE)):
            file.seek(place)
            found.update(file.read(_SAMPLE))
    return found.hexdigest()


def _row_hash(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=_SIZE).digest()


def write(folder: Path, facts: Mapping[str, Any], lines: Iterable[Line]) -> None:
    """Note what a run begins with; `lines` are its rows, none yet for a stream."""
    try:
        with (folder / FILE).open("wb") as file:
            file.write(json.dumps(facts).encode() + b"\n")
            file.writelines(_row_hash(line) for line, _ in lines)
    except OSError as error:
        raise OutputError(f"cannot write {folder / FILE}: {error.strerror}", fix="free some space") from error


def check(folder: Path, facts: Mapping[str, Any], lines: Iterable[Line] | None) -> None:
    """Raise `UsageError` where a run in `folder` began with other `facts` or rows; None leaves rows out (a stream).

    A folder without the file, of another program or an older version, passes.
    """
    if not (folder / FILE).is_file():
        return
    before, hashes = _read(folder)
    if facts["tokenizer"] != before.get("tokenizer"):
        raise UsageError("the tokenizer or its vocabulary is not the one that the run began with", fix=_AGAIN)
    _check_weights(facts["weights"], before.get("weights", {}))
    if lines is None:
        return
    known = (hashes[place : place + _SIZE] for place in range(0, len(hashes), _SIZE))
    number_before, source = len(hashes) // _SIZE, ""
    for number, (found, stored) in enumerate(zip_longest(lines, known), 1):
        source = found[1] if found else source
        if found is None or stored is None or _row_hash(found[0]) != stored:
            raise _other_rows(number, source, found, stored, number_before)


def _other_rows(number: int, source: str, found: Line | None, stored: bytes | None, before: int) -> UsageError:
    if found is None:
        what = f"ends after row {number - 1} ({source}); the run began with {before} rows"
    elif stored is None:
        what = f"has more than the {before} rows that the run began with, first {source}"
    else:
        what = f"differs first in row {number} ({source}), as rows are mixed and split here"
    return UsageError(f"the training data is not what the run began with: it {what}", fix=_AGAIN)


def _check_weights(now: Mapping[str, list[Any]], before: Mapping[str, list[Any]]) -> None:
    """Files under other names or of other sizes may hold the same weights in other shards, which nobody can tell."""
    for name in sorted(now.keys() & before.keys()):
        if now[name][0] == before[name][0] and now[name][1] != before[name][1]:
            raise UsageError(f"the weights in {name} are not those of the base that the run began with", fix=_AGAIN)


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    header, _, hashes = (folder / FILE).read_bytes().partition(b"\n")
    facts: dict[str, Any] = json.loads(header)
    return facts, hashes[: len(hashes) // _SIZE * _SIZE]  # a kill may have cut the last one


def watched(lines: Callable[[], Iterator[Line]], folder: Path, *, writes: bool) -> Callable[[], Iterator[Line]]:
    """Return `lines` of a stream that compares the rows that were read before, and notes those that come after.

    Of several passes it watches the first. Only one process `writes`.
    """
    started = count()

    def read() -> Iterator[Line]:
        return _watched(lines(), folder, writes) if next(started) == 0 else lines()

    return read


def _watched(lines: Iterator[Line], folder: Path, writes: bool) -> Iterator[Line]:
    path = folder / FILE
    if not path.is_file():
        yield from lines
        return
    _, hashes = _read(folder)
    known = len(hashes) // _SIZE
    new: list[bytes] = []
    for number, (line, source) in enumerate(lines):
        found = _row_hash(line)
        if number >= known:
            new.append(found)
        elif hashes[number * _SIZE : (number + 1) * _SIZE] != found:
            raise _other_rows(number + 1, source, (line, source), found, known)
        if writes and len(new) == _EVERY:
            _append(path, new)
        yield line, source
    if writes:
        _append(path, new)


def _append(path: Path, hashes: list[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(hashes)
    hashes.clear()
