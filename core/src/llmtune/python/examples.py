"""SWIFT's examples (query, response, history, system) and llmtune's rows, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmtune.data import preprocess
from llmtune.errors import DataError
from llmtune.specs import Row

COLUMNS = ("query", "response", "history", "system")


def as_row(example: Mapping[str, Any]) -> Row:
    """Return the row of an example; one with `messages` is a row already."""
    if "messages" in example:
        return {**example, "source": example.get("source", "the example")}  # type: ignore[typeddict-item]
    try:
        return {**preprocess.query_response(example), "source": "the example"}
    except ValueError as error:
        raise DataError(f"the example cannot be used: {error}", fix=f"its keys are {', '.join(COLUMNS)}") from error


def as_columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Return the columns of many rows; the last question of each is its query."""
    examples = [_example(row) for row in rows]
    return {column: [example[column] for example in examples] for column in COLUMNS}


def _example(row: Row) -> dict[str, Any]:
    texts = [turn["content"] for turn in row["messages"]]
    response = texts.pop() if row["messages"][-1]["role"] == "assistant" else None
    query = texts.pop()
    history = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return {"query": query, "response": response, "history": history, "system": row.get("system")}
