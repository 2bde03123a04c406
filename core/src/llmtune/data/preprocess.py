"""The preprocessors that core brings: common column layouts to rows.

Each takes one record (a mapping of columns) and raises `ValueError` with the reason when the record
does not fit. A record without an answer becomes a row that ends with a question: `infer` answers it,
training counts it as dropped. `auto` looks at the columns and picks a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmtune.specs import Message, Row

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "system": "system",
}


def query_response(record: Mapping[str, Any]) -> Row:
    """query, response, optional history (pairs) and system."""
    messages: list[Message] = []
    for pair in record.get("history") or []:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"history must be pairs of [query, response], found {pair!r}")
        messages += [_turn("user", pair[0], "history"), _turn("assistant", pair[1], "history")]
    messages += [_turn("user", record.get("query"), "query"), *_answer(record.get("response"), "response")]
    return _row(messages, record.get("system"))


def alpaca(record: Mapping[str, Any]) -> Row:
    """instruction, input, output, optional system."""
    instruction, extra = record.get("instruction") or "", record.get("input") or ""
    query = f"{instruction}\n{extra}" if instruction and extra else instruction or extra
    return _row([_turn("user", query, "instruction"), *_answer(record.get("output"), "output")], record.get("system"))


def messages(record: Mapping[str, Any]) -> Row:
    """messages with role and content, OpenAI's layout, each with an optional boolean loss."""
    return _conversation(record.get("messages"), "role", "content", record.get("system"))


def conversations(record: Mapping[str, Any]) -> Row:
    """conversations with from and value, ShareGPT's layout."""
    return _conversation(record.get("conversations"), "from", "value", record.get("system"))


LAYOUTS: dict[str, tuple[frozenset[str], Callable[[Mapping[str, Any]], Row]]] = {
    "messages": (frozenset({"messages"}), messages),
    "conversations": (frozenset({"conversations"}), conversations),
    "alpaca": (frozenset({"instruction"}), alpaca),
    "query-response": (frozenset({"query"}), query_response),
}
"""Name -> (columns that identify the layout, preprocessor)."""


def auto(record: Mapping[str, Any]) -> Row:
    """Pick the layout by the columns; two that fit are an error that names both."""
    columns = {key for key in record if not key.startswith("__")}
    fits = [name for name, (needed, _) in LAYOUTS.items() if needed <= columns]
    if len(fits) > 1:
        raise ValueError(f"the columns {sorted(columns)} fit both {' and '.join(fits)}")
    if not fits:
        known = ", ".join(" and ".join(sorted(needed)) for needed, _ in LAYOUTS.values())
        raise ValueError(f"no known layout in columns {sorted(columns)} (expected one of {known})")
    return LAYOUTS[fits[0]][1](record)


def _conversation(turns: Any, role_key: str, text_key: str, system: Any) -> Row:
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"expected a list of turns, found {turns!r}")
    built: list[Message] = []
    for turn in turns:
        if not isinstance(turn, Mapping) or role_key not in turn:
            raise ValueError(f"a turn must have {role_key} and {text_key}, found {turn!r}")
        role = _ROLES.get(str(turn[role_key]))
        if role is None:
            raise ValueError(f"unknown role {turn[role_key]!r} (expected {', '.join(sorted(_ROLES))})")
        message = _turn(role, turn.get(text_key), text_key)
        if "loss" in turn and turn["loss"] is not None:
            message["loss"] = bool(turn["loss"])
        built.append(message)
    if built[0]["role"] == "system":
        own = built.pop(0)["content"]
        system = own if system is None else system
    return _row(built, system)


def _turn(role: str, content: Any, column: str) -> Message:
    if content is None or (isinstance(content, str) and not content.strip()):
        what = "answer" if role == "assistant" else "question"
        raise ValueError(f"has no {what} (column {column!r} is {'missing or null' if content is None else 'empty'})")
    if not isinstance(content, str):
        raise ValueError(f"column {column!r} must be text, found {type(content).__name__}")
    return {"role": role, "content": content}  # type: ignore[typeddict-item]


def _answer(content: Any, column: str) -> list[Message]:
    """Return the answer's turn, or nothing where there is no answer."""
    missing = content is None or (isinstance(content, str) and not content.strip())
    return [] if missing else [_turn("assistant", content, column)]


def _row(turns: list[Message], system: Any) -> Row:
    roles = [turn["role"] for turn in turns]
    expected = ["user", "assistant"] * ((len(roles) + 1) // 2)
    if not roles or roles != expected[: len(roles)]:
        raise ValueError(f"turns must alternate user and assistant, found {', '.join(roles) or 'none'}")
    row: Row = {"messages": turns}
    if isinstance(system, str):
        row["system"] = system
    return row
