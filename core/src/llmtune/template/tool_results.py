"""Which call of an answer each result of a tool belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from llmtune.errors import DataError
from llmtune.specs import Message, ToolCall


def answered_calls(results: Sequence[Message], calls: Sequence[ToolCall]) -> list[int | None]:
    """Return the place in `calls` of the one that each of `results` answers: by its id, its name, else in order.

    None where all are answered. Raises `DataError` for a result of a call that the answer before does not have.
    """
    if not calls:
        return [None] * len(results)
    left = dict(enumerate(calls))
    found: dict[int, int] = {}
    with_ids = any("id" in call for call in calls)
    for key, known in (("tool_call_id", with_ids), ("name", True)):
        for number, result in enumerate(results):
            if known and key in result and number not in found:
                found[number] = _place(key, result, left, calls)
                del left[found[number]]
    in_order = iter(left)
    return [found[number] if number in found else next(in_order, None) for number in range(len(results))]


def _place(key: str, result: Message, left: dict[int, ToolCall], calls: Sequence[ToolCall]) -> int:
    """Return the first call of those `left` that `result` names by `key`."""
    named = str(result.get(key))
    place = next((place for place, call in left.items() if _name(call, key) == named), None)
    if place is None:
        again = any(_name(call, key) == named for call in calls)
        why = "more often than it was called" if again else "which the answer before does not call"
        raise DataError(f"gives a result of {named!r}, {why}")
    return place


def _name(call: ToolCall, key: str) -> str | None:
    return call.get("id") if key == "tool_call_id" else call["function"]["name"]
