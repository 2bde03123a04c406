"""Thoughts that an answer begins with, in the form that reasoning models write: `<think>...</think>`.

A template renders `reasoning_content` with its own control tokens; the text of a message never becomes one.
Rows that bring their thoughts inside of the text are taken apart before a template sees them.
"""

from __future__ import annotations

import re

from llmtune.errors import DataError
from llmtune.specs import Message, Row

_OPEN, _CLOSE = "<think>", "</think>"
_THOUGHTS = re.compile(rf"\s*(?:{_OPEN})?(.*?){_CLOSE}\n*(.*)", re.DOTALL)
_QUOTED = re.compile(rf"[`'\"]{_CLOSE}|{_CLOSE}[`'\"]")


def thoughts_apart(row: Row) -> Row:
    """Return the row with the thoughts of its answers in `reasoning_content`; plain text stays as it is.

    The prompt of many models begins the thoughts, so that their answers hold `</think>` alone: the same thoughts. Marks
    further inside of an answer are text. Raises `DataError` where thoughts do not end, or end twice.
    """
    messages = row["messages"]
    if len(messages) == 1 or not any("think>" in message["content"] for message in messages):
        return row
    return {**row, "messages": [_apart(message, number) for number, message in enumerate(messages, 1)]}


def _apart(message: Message, number: int) -> Message:
    """Line breaks at the borders belong to the form (DeepSeek-R1, Qwen3 and others write them), not to the text."""
    text = message["content"]
    if message["role"] != "assistant" or not _begins_with_thoughts(text):
        return message
    if message.get("reasoning_content"):
        if text.lstrip().startswith(_OPEN):
            raise DataError(f"turn {number}: has thoughts in its text, and others beside it")
        return message
    found = _THOUGHTS.fullmatch(text)
    if found is None:
        raise DataError(f"turn {number}: its thoughts begin with {_OPEN} and never end")
    if _OPEN not in text and text.count(_CLOSE) > 1:
        raise DataError(f"turn {number}: its thoughts end with {_CLOSE} more than once")
    return {**message, "reasoning_content": found[1].strip("\n"), "content": found[2]}


def said(answer: str) -> Message:
    """Return what a model answered as a turn of the conversation that goes on; thoughts that broke off end there."""
    thoughts, closed, content = answer.partition(_CLOSE)
    if not closed and not answer.lstrip().startswith(_OPEN):
        return {"role": "assistant", "content": answer}
    thoughts = thoughts.lstrip().removeprefix(_OPEN).strip("\n")
    return {"role": "assistant", "content": content.lstrip("\n"), "reasoning_content": thoughts}


def _begins_with_thoughts(text: str) -> bool:
    """An answer that writes of a mark (`</think>` in quotes, or both somewhere inside) has no thoughts."""
    return text.lstrip().startswith(_OPEN) or (_CLOSE in text and _OPEN not in text and not _QUOTED.search(text))
