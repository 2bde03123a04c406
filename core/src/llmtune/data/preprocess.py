"""The preprocessors that core brings: `auto` for every common layout, `fill` for texts with places.

Each takes one record (a mapping of columns) and raises `ValueError` with the reason when the record
does not fit. A record without an answer becomes a row that ends with a question: `infer` answers it,
training counts it as dropped. A record with nothing but text is plain text to pre-train on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmtune.data.columns import AmbiguousColumns, Layout, find_layout
from llmtune.data.media import add_media
from llmtune.data.turns import check_order, parsed, say, shown, to_messages, tools, unread_keys
from llmtune.specs import Message, Row


class Auto:
    """Finds each column's role by its name (`columns.py`); `columns` says so where names do not.

    Understood are alpaca (instruction, input, output), query/response with history and system,
    conversations and messages with tools, ShareGPT pairs, preference data (chosen and rejected as text
    or messages, rejected_response), KTO labels, plain text, and images, videos and audio.
    """

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        self.columns = dict(columns or {})
        self.unused: set[str] = set()
        """Columns, and keys of turns (`messages[].key`), seen so far that play no role."""
        self._layouts: dict[frozenset[str], Layout] = {}
        self._unfit: dict[frozenset[str], str] = {}
        """Why no layout fits these columns: said in the same words for every record, to be counted as one reason."""

    def __call__(self, record: Mapping[str, Any]) -> Row:
        layout = self._layout(record)
        cells = {role: record[column] for role, column in layout.roles.items()}
        names = layout.roles
        chosen = _answer(cells.get("chosen"), "chosen")
        if "messages" in names:
            messages = [*to_messages(cells["messages"], names["messages"]), *chosen]
            self.unused |= unread_keys(cells["messages"], names["messages"])
        else:
            messages = _turns(cells, names, chosen or _answer(cells.get("response"), names.get("response", "response")))
        system = _text(cells.get("system"), names.get("system", "system"))
        if messages and messages[0]["role"] == "system":
            system = _one_system(messages.pop(0)["content"], system, names.get("system", "system"))
        if "rejected" in cells and cells["rejected"] is not None:
            return self._preference(messages, cells, names, system)
        row = conversation(messages, system)
        _add_rest(row, cells)
        return row

    def _preference(
        self, messages: list[Message], cells: Mapping[str, Any], names: Mapping[str, str], system: str | None
    ) -> Row:
        row = conversation(messages, system)
        if row["messages"][-1]["role"] != "assistant":
            raise ValueError("has no answer that was preferred, only a rejected one")
        if len(row["messages"]) == 1:
            raise ValueError("has two answers and no question")
        other = _answer(cells["rejected"], names["rejected"])
        if other and other[0]["role"] == "system":
            other.pop(0)
        if other and other[0]["role"] == "assistant":  # the answer alone: the question is that of the row
            last = max(index for index, one in enumerate(row["messages"]) if one["role"] == "user")
            other = [*row["messages"][: last + 1], *other]
        check_order(other)
        if other == row["messages"]:
            raise ValueError("the rejected answer is the preferred one")
        row["rejected"] = other
        _add_rest(row, cells)
        return row

    def _layout(self, record: Mapping[str, Any]) -> Layout:
        columns = frozenset(key for key in record if not key.startswith("__"))
        if columns in self._unfit:
            raise ValueError(self._unfit[columns])
        if columns not in self._layouts:
            try:
                layout = find_layout(columns, self.columns, record)
            except AmbiguousColumns:
                # Tables carry every column for every record; one that is empty here cannot be meant.
                filled = (column for column in columns if record[column] is not None and record[column] != [])
                return find_layout(filled, self.columns)
            except ValueError as error:
                self._unfit[columns] = str(error)
                raise
            self._layouts[columns] = layout
            self.unused |= set(layout.unused)
        return self._layouts[columns]


def _one_system(own: str, cell: str | None, column: str) -> str:
    """Return the system prompt of a row that has one in its messages; `cell` is that of the column."""
    if cell is not None and cell.strip() and cell.strip() != own.strip():
        raise ValueError(f"has two system prompts: {shown(cell)} in column {column!r}, {shown(own)} in its messages")
    return own


def auto(record: Mapping[str, Any]) -> Row:
    """Turn one record into a row by the names of its columns alone; see `Auto`."""
    return Auto()(record)


def _turns(cells: Mapping[str, Any], names: Mapping[str, str], response: list[Message]) -> list[Message]:
    """Return the turns of columns that hold one turn each: history, then query (with its extra), then response."""
    if len(response) > 1 or (response and response[0]["role"] != "assistant"):  # chosen holds the whole conversation
        question = _question(cells, names)
        starts_with_question = any(one["role"] == "user" for one in response[:2])
        return response if starts_with_question else [*question, *response]
    if "query" not in names and "extra" not in names and "history" not in names:
        return response
    question = _question(cells, names)
    if not question:
        how = "missing or null" if cells.get("query") is None else "empty"
        raise ValueError(f"has no question (column {names.get('query', 'query')!r} is {how})")
    return [*history(cells.get("history")), *question, *response]


def _question(cells: Mapping[str, Any], names: Mapping[str, str]) -> list[Message]:
    query, extra = cells.get("query"), cells.get("extra")
    if isinstance(query, list):  # TRL's conversational prompt
        return to_messages(query, names["query"])
    texts = [
        text for cell, role in ((query, "query"), (extra, "extra")) if (text := _text(cell, names.get(role, role)))
    ]
    return [say("user", "\n".join(texts), names.get("query", "query"))] if any(map(str.strip, texts)) else []


def _answer(cell: Any, column: str) -> list[Message]:
    """Return the turns of an answer's cell: text, one message, or a list of messages; nothing where it is empty."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return []
    if isinstance(cell, Mapping) and {"role", "from"} & cell.keys():
        cell = [cell]
    if isinstance(cell, list | tuple) and cell and all(isinstance(one, Mapping) for one in cell):
        return to_messages(cell, column)
    if isinstance(cell, list | tuple) and len(cell) == 1:  # `answers` with one element
        cell = cell[0]
    return [say("assistant", cell, column)]


def history(cell: Any) -> list[Message]:
    """Return earlier turns: pairs of [query, response], also as the text of such a list."""
    pairs = parsed(cell, "history") if cell else []
    if not isinstance(pairs, list | tuple):
        raise ValueError(f"history must be pairs of [query, response], found {shown(pairs)}")
    messages: list[Message] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"history must be pairs of [query, response], found {shown(pair)}")
        messages += [say("user", pair[0], "history"), say("assistant", pair[1], "history")]
    return messages


def conversation(messages: list[Message], system: str | None = None) -> Row:
    """Return a row of `messages`; raise `ValueError` unless user and assistant take turns."""
    check_order(messages)
    return {"messages": messages} if system is None else {"messages": messages, "system": system}


def ask(question: Any, answer: Any, system: str | None = None) -> Row:
    """Return the row of one question and its answer; raise `ValueError` where either has no text."""
    return conversation([say("user", question, "question"), say("assistant", answer, "answer")], system)


def _add_rest(row: Row, cells: Mapping[str, Any]) -> None:
    """Add tools, label and media."""
    if cells.get("tools"):
        row["tools"] = tools(cells["tools"])
    label = cells.get("label")
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if isinstance(label, bool):  # numbers are classes, and no business of a conversation
        row["label"] = label
    add_media(row, cells)


def _text(cell: Any, column: str) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    raise ValueError(f"column {column!r} must be text, found {type(cell).__name__}")


class Fill:
    """Builds question and answer from texts with places: `{sentence}` stands for the column `sentence`.

    `query` may be empty (plain text). `choices` maps a column to a list: its number (also as text, also
    1.0) is replaced by that element, an element itself stays, and a record with anything else does not fit.
    """

    def __init__(
        self, response: str, query: str = "", system: str = "", choices: Mapping[str, list[str]] | None = None
    ) -> None:
        self.response, self.query, self.system = response, query, system
        self.choices = dict(choices or {})

    def __call__(self, record: Mapping[str, Any]) -> Row:
        answer = say("assistant", self._filled(self.response, record), "response")
        question = [say("user", self._filled(self.query, record), "query")] if self.query else []
        row = conversation([*question, answer], self._filled(self.system, record) or None)
        add_media(row, {role: record.get(role) or record.get(role[:-1]) for role in ("images", "videos", "audios")})
        return row

    def _filled(self, text: str, record: Mapping[str, Any]) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: self._value(match[1], record), text)

    def _value(self, column: str, record: Mapping[str, Any]) -> str:
        value = record.get(column)
        if value is None:
            raise ValueError(f"column {column!r} is missing or null")
        if column in self.choices:
            return _choice(value, self.choices[column], column)
        if not isinstance(value, str | int | float):
            raise ValueError(f"column {column!r} must be text, found {type(value).__name__}")
        return str(value)


def _choice(value: Any, choices: list[str], column: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    number = re.fullmatch(r"(\d{1,9})(\.0+)?", str(value))
    if number is None or int(number[1]) >= len(choices):
        raise ValueError(f"column {column!r} must be 0 to {len(choices) - 1}, found {shown(value)}")
    return choices[int(number[1])]
