"""Aligned text tables. `rich` would take as long to import as a listing may take in all."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence

from llmtune.config.environment import terminal_width


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, columns padded; the last column is cut at the terminal's edge."""
    lines = [tuple(header), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(_width, cells)) for cells in list(zip(*lines, strict=True))[:-1]]
    room = (terminal_width() or shutil.get_terminal_size((100, 24)).columns) - sum(widths) - 2 * len(widths)
    shown = []
    for line in lines:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=False)]
        shown.append("  ".join([*cells, _cut(line[-1], max(room, 20))]).rstrip())
    return "\n".join(shown)


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
