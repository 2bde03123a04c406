"""Preprocessors: from the columns of one dataset to rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llmtune.specs import Row


class Preprocessor(Protocol):
    """Turns one raw record into a `Row`."""

    def __call__(self, record: Mapping[str, Any], /) -> Row | None:
        """Return the row, None to leave the record out on purpose, or raise `ValueError` with the reason."""
