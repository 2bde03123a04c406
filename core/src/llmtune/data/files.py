"""Read records from data files, one after the other, with the place each came from.

Files are read as streams: none is ever held in memory as a whole. A record that is broken while the
rest of its file can be read comes with the reason under `opening.PROBLEM`, and is counted as dropped later.
"""

from __future__ import annotations

import glob
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmtune.data.opening import CHUNK, COMPRESSIONS, SOURCE, Record, as_text, broken, opened, reason
from llmtune.data.separated import comma_separated, tab_separated
from llmtune.data.turns import shown
from llmtune.errors import DataError

_EXPECTED = "expected one object per line"
_LARGEST_INDEX = 1 << 16  # bytes of a file of subsets
_METADATA = {"dataset_info.json", "dataset_infos.json", "configuration.json", "dataset_dict.json", "state.json"}
"""Files that describe the data beside them."""
_CACHE = re.compile(r"cache-[0-9a-f]{16}(_\d+_of_\d+)?\.arrow|tmp\w{8}(\.arrow)?")
"""What `datasets` calls the results of map, filter and shuffle, and those that it has not finished."""


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, of every data file of a folder, or of the files that a pattern matches."""
    for file in data_files(path):
        yield from _reader(file)(file)


def data_files(path: Path) -> list[Path]:
    """Return the file itself, the data files of a folder or the matches of a pattern, in sorted order."""
    try:
        if not path.exists() and glob.has_magic(str(path)):
            return _matches(path)
        path.stat()
    except OSError as error:
        raise DataError(f"dataset {path} cannot be read: {error.strerror}", fix="check the path") from error
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if is_data(file, path))
    if not files:
        raise DataError(f"dataset folder {path} holds no data file", fix=f"expected {', '.join(_READERS)}")
    return files


def _matches(pattern: Path) -> list[Path]:
    files = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))
    if not files:
        raise DataError(f"no file matches {pattern}", fix="check the pattern; relative ones start where you stand")
    return sorted({file.resolve(): file for file in reversed(files) if file.is_file()}.values())


def is_data(file: Path, folder: Path) -> bool:
    """Whether `file` of `folder` holds records: by its name, and not hidden (`.git`, a download in progress)."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    if hidden or file.name in _METADATA or kind_of(file) not in _READERS or not file.is_file():
        return False
    if file.is_symlink() and file.resolve().is_relative_to(folder.resolve()):
        return False  # a second name of a file that is read as well
    if file.suffix == ".arrow":
        return _is_saved(file)
    return file.suffix != ".json" or subset_index(file) is None


def _is_saved(file: Path) -> bool:
    """Whether an Arrow file is data: not what `datasets` leaves beside it after map, filter and shuffle.

    `save_to_disk` names its files in state.json; elsewhere the caches are told by their names.
    """
    try:
        state = json.loads((file.parent / "state.json").read_bytes())
        return file.name in {one["filename"] for one in state["_data_files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return _CACHE.fullmatch(file.name) is None


def subset_index(file: Path) -> dict[str, dict[str, dict[str, str]]] | None:
    """Return the content of ModelScope's file of subsets, None for any other file."""
    try:
        if not 2 < file.stat().st_size < _LARGEST_INDEX:
            return None
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    splits = [one for part in content.values() for one in _values_of(part)] if isinstance(content, dict) else []
    is_index = bool(splits) and all(isinstance(one, dict) and isinstance(one.get("meta"), str) for one in splits)
    return content if is_index else None


def _values_of(part: Any) -> list[Any]:
    return list(part.values()) if isinstance(part, dict) else [None]


def kind_of(file: Path) -> str:
    """Return the suffix that names the format: ".jsonl" for `rows.jsonl.gz`."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def _reader(file: Path) -> Callable[[Path], Iterator[Record]]:
    reader = _READERS.get(kind_of(file))
    if reader is None:
        raise DataError(
            f"dataset {file}: unknown file type {kind_of(file)!r}",
            fix=f"expected {', '.join(_READERS)}, also compressed ({', '.join(COMPRESSIONS)})",
        )
    return reader


def _lines(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (place, text) of each line that is not blank; None for one that is not UTF-8."""
    with opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield f"{path}:{number}", None
                continue
            if text.strip():
                yield f"{path}:{number}", text


def _jsonl(path: Path) -> Iterator[Record]:
    for place, line in _lines(path):
        yield from [broken("is not UTF-8", place)] if line is None else _parsed(line, place)


def _parsed(line: str, place: str) -> Iterator[Record]:
    """Yield the object of a line; some files hold several in one (`{...}{...}`)."""
    start, decode = _skip(line, 0, ""), json.JSONDecoder().raw_decode
    while start < len(line):
        try:
            record, end = decode(line, start)
            yield _record(record, place)
            start = _skip(line, end, ",")
            continue
        except RecursionError:
            yield broken(f"malformed JSON (nested too deeply), {_EXPECTED}", place)
        except ValueError as error:  # also a number with too many digits
            what = (
                f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
            )
            yield broken(f"malformed JSON ({what}), {_EXPECTED}", place)
        return


def _record(record: Any, place: str) -> Record:
    if not isinstance(record, dict):
        return broken(f"expected an object with named columns, found {shown(record)}", place)
    return {**record, SOURCE: place}


def _text_lines(path: Path) -> Iterator[Record]:
    for place, line in _lines(path):
        yield broken("is not UTF-8", place) if line is None else {"text": line, SOURCE: place}


def _json(path: Path) -> Iterator[Record]:
    """Objects of a list, one single object, one object per line, or objects written one after the other."""
    if _is_one_per_line(path):
        yield from _jsonl(path)
        return
    with opened(path) as stream, as_text(stream) as text:
        for number, value in enumerate(_values(text, path), start=1):
            yield _record(value, f"{path}: record {number}")


def _is_one_per_line(path: Path) -> bool:
    """Whether the first line is an object: JSON Lines under the name .json is common."""
    with opened(path) as stream:
        start = stream.read(CHUNK).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith(b"{"):  # a list: it may be a line of many gigabytes
            return False
        first = start.partition(b"\n")[0] if b"\n" in start else start + stream.readline()
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _values(text: io.TextIOWrapper, path: Path) -> Iterator[Any]:
    """Yield the elements of the outermost list (or what stands there without one) while the file is read."""
    decode = json.JSONDecoder().raw_decode
    window, start, size = text.read(CHUNK), 0, CHUNK
    start = _skip(window, 0, "")
    in_list = window[start : start + 1] == "["
    start += in_list
    while True:
        start = _skip(window, start, ",")
        if start < len(window) and not (in_list and window[start] == "]"):
            try:
                value, end = decode(window, start)
                if end < len(window) or isinstance(value, dict):  # a number may go on in the next chunk
                    yield value
                    start, size = end, CHUNK
                    continue
                problem = None
            except RecursionError:
                raise _malformed(path, "nested too deeply", window, start) from None
            except ValueError as error:
                problem = getattr(error, "msg", str(error))
        else:
            problem = "the list has no end" if in_list and start >= len(window) else None
            if start < len(window):
                _check_end(path, window[start + 1 :] + text.read(CHUNK))
                return
        more = text.read(size)
        if not more and problem is not None:
            raise _malformed(path, problem, window, start)
        if not more:
            yield from [decode(window, start)[0]] if start < len(window) else []
            return
        window, start, size = window[start:] + more, 0, size * 2


def _check_end(path: Path, text: str) -> None:
    """Raise `DataError` for records that would be lost: a second list, objects after the list."""
    start = _skip(text, 0, "")
    if start < len(text):
        raise _malformed(path, "something follows the list", text, start)


def _skip(text: str, start: int, between: str) -> int:
    while start < len(text) and (text[start].isspace() or text[start] in between):
        start += 1
    return start


def _malformed(path: Path, problem: str, text: str, start: int) -> DataError:
    return DataError(
        f"{path}: malformed JSON ({problem}), near {shown(text[start : start + 60])}",
        fix='expected a list of objects, e.g. [{"query": "...", "response": "..."}]',
    )


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow.parquet as pq

    yield from _tables(path, "Parquet", lambda stream: pq.ParquetFile(stream).iter_batches(batch_size=1000))


def _arrow(path: Path) -> Iterator[Record]:
    """Both of Arrow's forms: the stream (what `datasets` caches) and the file."""
    import pyarrow as pa

    def batches(stream: Any) -> Iterator[Any]:
        if stream.peek(6).startswith(b"ARROW1"):
            file = pa.ipc.open_file(stream)
            found = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            found = pa.ipc.open_stream(stream)
        for batch in found:
            batch.validate(full=True)  # pyarrow follows damaged offsets unchecked, which ends the process
            yield batch

    yield from _tables(path, "Arrow", batches)


def _tables(path: Path, kind: str, batches: Callable[[Any], Iterator[Any]]) -> Iterator[Record]:
    import pyarrow as pa

    number = 0
    with opened(path) as stream:
        try:
            for batch in batches(stream):
                nested = {field.name for field in batch.schema if pa.types.is_nested(field.type)}
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    own = {name: _without_nulls(cell) if name in nested else cell for name, cell in record.items()}
                    yield {**own, SOURCE: f"{path}: record {number}"}
        # Arithmetic: a date or a decimal number that Python has none for.
        except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, ValueError) as error:
            raise DataError(f"dataset {path} is not a readable {kind} file: {reason(error)}") from error


def _without_nulls(cell: Any) -> Any:
    """Return a nested value without what it has none of: Arrow gives every struct the keys of all, as null."""
    if isinstance(cell, dict):
        return {key: _without_nulls(value) for key, value in cell.items() if value is not None}
    return [_without_nulls(value) for value in cell] if isinstance(cell, list) else cell


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _text_lines,
}

SUFFIXES = frozenset(_READERS)
"""What the names of data files end in, before `.gz` or `.zst`."""
