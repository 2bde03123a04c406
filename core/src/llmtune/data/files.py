"""Read records from data files, one after the other, with the place each came from."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmtune.errors import DataError

Record = dict[str, Any]
SOURCE = "__source__"


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, or of every data file of a folder in sorted order."""
    try:
        path.stat()
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror}", fix="check the path") from error
    files = sorted(file for file in path.rglob("*") if file.suffix in _READERS) if path.is_dir() else [path]
    if not files:
        raise DataError(f"dataset folder {path} holds no data file", fix=f"expected {', '.join(_READERS)}")
    for file in files:
        reader = _READERS.get(file.suffix)
        if reader is None:
            raise DataError(f"dataset {file}: unknown file type {file.suffix!r}", fix=f"expected {', '.join(_READERS)}")
        yield from reader(file)


def _open(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"dataset {path} is not UTF-8: {error}", fix="convert the file to UTF-8") from error


def _jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_open(path).split("\n"), start=1):
        if line.strip():
            yield _record(_parse(line, f"{path}:{number}"), f"{path}:{number}")


def _json(path: Path) -> Iterator[Record]:
    text = _open(path)
    if text.lstrip().startswith("{") and "\n{" in text.strip():
        yield from _jsonl(path)  # JSON Lines under the name .json is common
        return
    records = _parse(text, str(path))
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of objects, found a {type(records).__name__}")
    for number, record in enumerate(records, start=1):
        yield _record(record, f"{path}: record {number}")


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        shown = text[:60] + ("..." if len(text) > 60 else "")
        raise DataError(
            f"{place}: malformed JSON ({error.msg} at character {error.pos + 1}), found {shown!r}",
            fix='expected one object per line, e.g. {"query": "...", "response": "..."}',
        ) from error


def _record(record: Any, place: str) -> Record:
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected an object with named columns, found {json.dumps(record)[:60]}")
    return {**record, SOURCE: place}


def _csv(path: Path) -> Iterator[Record]:
    separator = "\t" if path.suffix == ".tsv" else ","
    csv.field_size_limit(sys.maxsize)  # a cell may hold a book; the default is 128 KiB
    reader = csv.DictReader(io.StringIO(_open(path), newline=""), delimiter=separator)
    header = reader.fieldnames or ()
    for record in reader:
        if None in record:
            problem = f"{path}:{reader.line_num}: has more cells than the header's {len(header)} columns"
            raise DataError(problem, fix=f"quote cells that hold the separator; the header is {separator.join(header)}")
        yield {**record, SOURCE: f"{path}:{reader.line_num}"}


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(path).to_pylist()
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror or str(error).splitlines()[0]}") from error
    except pa.ArrowException as error:
        raise DataError(f"dataset {path} is not a Parquet file: {str(error).splitlines()[0]}") from error
    for number, record in enumerate(records, start=1):
        yield {**record, SOURCE: f"{path}: record {number}"}


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}

SUFFIXES = frozenset(_READERS)
"""What the names of data files end in."""
