"""SWIFT's preprocessors as functions of one record, for `register_dataset(..., preprocess_func=...)`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Literal

from llmtune.data import preprocess
from llmtune.data.opening import SOURCE
from llmtune.errors import DataError
from llmtune.specs import Row


def _parse(cell: Any) -> Any:
    """SWIFT's default repair: a list that is written as Python's text of it."""
    return ast.literal_eval(cell) if isinstance(cell, str) else cell


_COLUMNS = ("messages", "system", "tools", "instruction", "input", "output")


def _row(record: Mapping[str, Any]) -> Row:
    """Return the row of the columns that these preprocessors know; whatever else a record holds is none of theirs."""
    return preprocess.auto({key: record[key] for key in _COLUMNS if key in record})


class ConversationsPreprocessor:
    """Turns of any roles and keys. `repair_conversations` gets the raw cell and returns the turns.

    A record that does not fit stops everything with `error_strategy="raise"`; with "delete" it is
    counted and shown as dropped. A repair function that returns None leaves its record out.
    """

    def __init__(
        self,
        user_role: str = "user",
        assistant_role: str = "assistant",
        conversations_key: str = "conversations",
        from_key: str = "from",
        value_key: str = "value",
        repair_conversations: Callable[[Any], Any] = _parse,
        error_strategy: Literal["delete", "raise"] = "raise",
    ) -> None:
        self.roles = {"system": "system", user_role: "user", assistant_role: "assistant"}
        self.conversations_key, self.from_key, self.value_key = conversations_key, from_key, value_key
        self.repair_conversations = repair_conversations
        self.error_strategy = error_strategy

    def __call__(self, record: Mapping[str, Any]) -> Row | None:
        try:
            turns = self._turns(record)
            return None if turns is None else _row({**record, "messages": turns})
        except ValueError as error:
            if self.error_strategy == "delete":
                raise
            place = record.get(SOURCE, "a record")
            raise DataError(f"{place}: {error}", fix="mend it, or leave such out: error_strategy='delete'") from error

    def _turns(self, record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        if self.conversations_key not in record:
            raise ValueError(f"has no column {self.conversations_key!r}, found {sorted(record)}")
        try:
            turns = self.repair_conversations(record[self.conversations_key])
        except Exception as error:  # the user's own function, and whatever it calls
            raise ValueError(f"cannot be repaired: {type(error).__name__}: {error}") from error
        return None if turns is None else [self._turn(turn) for turn in turns]

    def _turn(self, turn: Any) -> dict[str, Any]:
        if not isinstance(turn, Mapping) or not {self.from_key, self.value_key} <= turn.keys():
            raise ValueError(f"a turn must have {self.from_key} and {self.value_key}, found {turn!r}")
        role = self.roles.get(turn[self.from_key])
        if role is None:
            raise ValueError(f"unknown role {turn[self.from_key]!r} (expected {', '.join(self.roles)})")
        return {"role": role, "content": turn[self.value_key]}


class AlpacaPreprocessor:
    """instruction, input, output, optional system."""

    def __call__(self, record: Mapping[str, Any]) -> Row:
        return _row({key: record.get(key) for key in ("instruction", "input", "output", "system")})
