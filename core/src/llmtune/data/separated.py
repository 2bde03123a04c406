"""Records of CSV (RFC 4180) and TSV files. A record that is malformed is never joined to its neighbours."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmtune.data.opening import SOURCE, Record, as_text, broken, opened
from llmtune.errors import DataError

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_SWALLOWED = 3
"""Lines inside of one quoted cell, each a record of its own, that tell a quote that was never closed."""

_NOT_CSV = "close or double the quote that the record begins with; JSON lines (.jsonl) know no such doubts"
_NOT_TSV = "write the table as CSV with commas, or as JSON lines (.jsonl)"

Cells = list[str]


def comma_separated(path: Path) -> Iterator[Record]:
    """Yield the records of a CSV file.

    A cell in quotes may hold commas, line breaks and doubled quotes; a quote inside of any other cell is text. A quote
    that is never closed, or with text behind its closing one, is a `DataError`: where the next record begins is
    anybody's guess.
    """
    with opened(path) as stream, as_text(stream) as text:
        rows = _csv_rows(_reader(text, strict=True), path)
        header = _header(rows, path)
        _check_separator(header, path)
        for first, last, cells in rows:
            place = f"{path}:{last}"
            if any("\n" in cell and _swallows_records(cell, len(header)) for cell in cells):
                raise _malformed(path, first, f"a quoted cell spans the lines up to {last}, which are records too")
            yield _record(header, cells, place)


def tab_separated(path: Path) -> Iterator[Record]:
    """Yield the records of a TSV file: one on each line. A quote is text; there is no way to quote a cell.

    (IANA, text/tab-separated-values.) Files that are quoted all the same, as spreadsheets write them, are refused.
    """
    with opened(path) as stream, as_text(stream) as text:
        reader = _reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = ((reader.line_num, reader.line_num, cells) for cells in reader if cells)
        header = _header(rows, path)
        was_open = False
        for number, _, cells in rows:
            if (was_open and len(cells) != len(header)) or any(map(_is_quoted, cells)):
                raise _malformed(path, number, "cells are quoted, and in TSV a quote is text", fix=_NOT_TSV)
            was_open = any(cell.startswith('"') and cell.count('"') % 2 for cell in cells)
            yield _record(header, cells, f"{path}:{number}")


def _reader(text: Iterable[str], **dialect: Any) -> Any:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a book; the default is 128 KiB
    return csv.reader(text, **dialect)


def _csv_rows(reader: Any, path: Path) -> Iterator[tuple[int, int, Cells]]:
    """Yield (first line, last line, cells) of each record that is not blank."""
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            ends = "end of data" in str(error)
            what = "a quote is never closed" if ends else "text follows a closing quote, or a quote is not doubled"
            raise _malformed(path, first, what) from error
        if cells:
            yield first, reader.line_num, cells


def _header(rows: Iterable[tuple[int, int, Cells]], path: Path) -> Cells:
    header = next((cells for _, _, cells in rows), [])
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: the header names the column {twice!r} twice", fix="give each column its own name")
    return header


def _check_separator(header: Cells, path: Path) -> None:
    """Refuse a header of one cell that holds another separator: every record would be one column."""
    found = [name for mark, name in _OTHER_SEPARATORS.items() if len(header) == 1 and mark in header[0]]
    if found:
        fix = "name the file .tsv" if found == ["tabs"] else "write it with commas, or as JSON lines"
        raise DataError(f"{path}: the header is one cell, {header[0]!r}: are cells separated by {found[0]}?", fix=fix)


def _record(header: Sequence[str], cells: Sequence[str], place: str) -> Record:
    if len(cells) == len(header):
        return {**dict(zip(header, cells, strict=True)), SOURCE: place}
    what = f"has {'more' if len(cells) > len(header) else 'fewer'} cells"
    return broken(f"{what} than the header's {len(header)} columns", place)


def _swallows_records(cell: str, columns: int) -> bool:
    """Whether the lines inside of a cell look like the records of a file with `columns` columns, at least 2."""
    inside = cell.splitlines()[1:-1]
    if columns < 2 or len(inside) < _SWALLOWED:
        return False
    return all(len(cells) == columns for cells in csv.reader(inside))


def _is_quoted(cell: str) -> bool:
    return len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]


def _malformed(path: Path, line: int, problem: str, fix: str = _NOT_CSV) -> DataError:
    return DataError(f"{path}:{line}: malformed record: {problem}", fix=fix)
