"""What the readers of all formats share: a file that is opened, decompressed on the way, and records."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmtune.errors import DataError

Record = dict[str, Any]
SOURCE, PROBLEM = "__source__", "__problem__"
"""Keys of a record: the place it came from, and why it cannot be used."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
CHUNK = 1 << 20
"""Characters of a JSON file (bytes of a compressed one) that are read at once."""


def broken(problem: str, place: str) -> Record:
    return {SOURCE: place, PROBLEM: problem}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressing on the way; whatever goes wrong while it is read is a `DataError`."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    try:
        with _stream(path, compression) as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise DataError(f"dataset {path} is not UTF-8: {error}", fix="convert the file to UTF-8") from error
    except (OSError, EOFError, MemoryError, csv.Error, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DataError(f"dataset {path} cannot be read: {reason(error)}") from error


def reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _stream(path: Path, compression: str | None) -> Any:
    if compression == "gzip":
        return gzip.open(path, "rb")
    if compression == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), CHUNK)
    return path.open("rb")


def as_text(stream: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
