"""Aligned text tables. `rich` would take as long to import as a listing may take in all."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence

from llmtune.config.environment import terminal_width


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, columns padded; the last column is cut at the terminal's edge."""
    lines = [tuple(header), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(_width, cells)) for cells in list(zip(*lines, strict=True))[:-1]]
    room = max(_room() - sum(widths) - 2 * len(widths), 20)
    shown = []
    for line in lines:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=False)]
        shown.append("  ".join([*cells, _cut(line[-1], room)]).rstrip())
    return "\n".join(shown)


def _room() -> int:
    """Return the width of the terminal; a pipe or a file takes whole lines."""
    if not sys.stdout.isatty() and terminal_width() is None:
        return sys.maxsize
    return terminal_width() or shutil.get_terminal_size((100, 24)).columns


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _cut(text: str, room: int) -> str:
    if _width(text) <= room:
        return text
    while _width(text) > room - 3:
        text = text[: room - 3] if text.isascii() else text[:-1]
    return text + "..."
