"""Turns of a conversation in the layouts that datasets use, as messages."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from llmtune.specs import Message, ToolCall

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "function", "function_response", "tool_response", "observation", "observations"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "tool_call"),
}
"""Name of a role in a dataset -> role; "tool_call" is an assistant turn whose content is the call."""

_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_CALL_KEYS = ("tool_calls", "function_call")  # the second is OpenAI's older one
_LOSS_KEYS = ("loss", "weight", "train")  # ours and SWIFT's, OpenAI's, axolotl's
_RESULT_KEYS = ("tool_call_id", "name")
_SHOWN = 80


def shown(value: Any) -> str:
    """Return a value as an error shows it: short, on one line."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def parsed(cell: Any, column: str) -> Any:
    """Return a cell that may hold JSON, or Python's text of a value (nothing is executed), as that value."""
    if not isinstance(cell, str):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(cell)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise ValueError(f"column {column!r} must be a list, found the text {shown(cell)}")


def to_messages(cell: Any, column: str) -> list[Message]:
    """Return the messages of a column of turns, a leading system message included.

    Understood are role/content and from/value (also mixed, also as JSON text), OpenAI's content parts
    and tool calls, and pairs of `human` and `assistant` in one mapping (ShareGPT's oldest form). A turn that is
    nothing but calls (SWIFT's `tool_call`) goes on with the answer before it: both are one turn of the assistant.
    """
    messages: list[Message] = []
    for turn in _turns(cell, column):
        for message in _messages(turn, column):
            if messages and _goes_on(messages[-1], message):
                messages[-1] = _one_answer(messages[-1], message)
            else:
                messages.append(message)
    return messages


def _turns(cell: Any, column: str) -> list[Any]:
    turns = parsed(cell, column)
    if hasattr(turns, "tolist"):  # a numpy array, from Parquet through pandas
        turns = turns.tolist()
    if not isinstance(turns, list | tuple) or not turns:
        raise ValueError(f"column {column!r} must be a list of turns, found {shown(turns)}")
    return list(turns)


def unread_keys(cell: Any, column: str) -> set[str]:
    """Return the keys of turns that play no role, as `column[].key`; `cell` is one that `to_messages` takes."""
    keys = {
        key
        for turn in _turns(cell, column)
        for key, value in turn.items()
        if value is not None and not _is_read(key, turn)
    }
    return {f"{column}[].{key}" for key in keys}


def _is_read(key: str, turn: Mapping[str, Any]) -> bool:
    name = next((turn[one] for one in _ROLE_KEYS if turn.get(one) is not None), None)
    if name is None:
        return str(key).lower() in ROLES
    read = (*_ROLE_KEYS, *_CONTENT_KEYS, *_THOUGHT_KEYS, *_CALL_KEYS, *_LOSS_KEYS)
    return key in read or (key in _RESULT_KEYS and ROLES.get(str(name).strip().lower()) == "tool")


def _messages(turn: Any, column: str) -> list[Message]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"a turn of {column!r} must have a role and a content, found {shown(turn)}")
    _, name = _value_of(turn, _ROLE_KEYS)
    if name is None:
        return _pair(turn, column)
    role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"unknown role {shown(name)} (expected one of {', '.join(ROLES)})")
    key, content = _value_of(turn, _CONTENT_KEYS)
    called_by, called = _value_of(turn, _CALL_KEYS)
    if role == "tool_call":
        if called in (None, [], ""):
            called_by, called, content = "content", content, None
        elif content not in (None, ""):
            raise ValueError(f"a turn of role {name!r} has calls in {key!r} and in {called_by!r}")
        role = "assistant"
        calls = tool_calls(called)
    else:
        calls = tool_calls(called) if called not in (None, [], "") else []
    message = say(role, content, key, may_be_empty=bool(calls))
    _, thoughts = _value_of(turn, _THOUGHT_KEYS)
    if thoughts is not None and not isinstance(thoughts, str):
        raise ValueError(f"thoughts of a turn must be text, found {shown(thoughts)}")
    if role != "assistant" and (calls or thoughts):
        raise ValueError(
            f"a turn of role {name!r} has {'calls of tools' if calls else 'thoughts'}: an assistant's have"
        )
    if role == "assistant" and thoughts is not None:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = calls
    _add_loss(message, turn)
    if role == "tool":
        _add_result(message, turn)
    return [message]


def _value_of(turn: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, Any]:
    """Return (key, value) of the one thing that is known by several names; two that differ are a `ValueError`."""
    found = {key: turn[key] for key in keys if turn.get(key) is not None}
    key = next(iter(found), next((key for key in keys if key in turn), keys[0]))
    for other, value in found.items():
        if value != found[key]:
            raise ValueError(f"a turn has {key!r} {shown(found[key])} and {other!r} {shown(value)}: leave one out")
    return key, found.get(key)


def _add_loss(message: Message, turn: Mapping[str, Any]) -> None:
    """Say whether a turn is trained on, where the row does: by one of three names, which must not contradict."""
    said = {key: _flag(turn[key], key) for key in _LOSS_KEYS if turn.get(key) is not None}
    if len(set(said.values())) > 1:
        raise ValueError(f"a turn says both: {', '.join(f'{key} {turn[key]!r}' for key in said)}")
    if "loss" in said or (message["role"] == "assistant" and not all(said.values())):
        message["loss"] = next(iter(said.values()))


def _add_result(message: Message, turn: Mapping[str, Any]) -> None:
    """Say which call a result answers, where the row does."""
    if turn.get("tool_call_id") is not None:
        message["tool_call_id"] = str(turn["tool_call_id"])
    if isinstance(turn.get("name"), str) and turn["name"]:
        message["name"] = turn["name"]


def _goes_on(before: Message, message: Message) -> bool:
    """Return whether a turn is nothing but calls, behind another of the assistant."""
    only_calls = bool(message.get("tool_calls")) and not message["content"].strip()
    return only_calls and before["role"] == message["role"] == "assistant"


def _one_answer(before: Message, calls: Message) -> Message:
    if before.get("loss", True) != calls.get("loss", True):
        raise ValueError("the calls of an answer must be trained on as its text is: 'loss' says yes and no")
    if calls.get("reasoning_content"):
        if before["content"].strip() or before.get("tool_calls") or before.get("reasoning_content"):
            raise ValueError("has thoughts between the parts of one answer")
        before = {**before, "reasoning_content": calls["reasoning_content"]}
    return {**before, "tool_calls": [*before.get("tool_calls", []), *calls["tool_calls"]]}


def _pair(turn: Mapping[str, Any], column: str) -> list[Message]:
    """ShareGPT's `{"human": ..., "assistant": ...}`."""
    names = [name for name in turn if ROLES.get(str(name).lower()) in ("system", "user", "assistant")]
    if not names:
        raise ValueError(f"a turn of {column!r} must have a role and a content, found {shown(dict(turn))}")
    order = {"system": 0, "user": 1, "assistant": 2}
    roles = sorted((order[ROLES[name.lower()]], ROLES[name.lower()], name) for name in names)
    return [say(role, turn[name], name) for _, role, name in roles if turn[name] is not None]


def say(role: str, content: Any, column: str, *, may_be_empty: bool = False) -> Message:
    """Return one message; raise `ValueError` where there is no text."""
    if isinstance(content, list | tuple) and content and all(isinstance(part, Mapping | str) for part in content):
        if len(content) > 1 and all(isinstance(part, str) for part in content):
            raise ValueError(f"column {column!r} must be one text, found {len(content)} of them")
        content = "".join(_part(part) for part in content)
    if content is None or (isinstance(content, str) and not content.strip()):
        if may_be_empty or role == "tool":
            return {"role": role, "content": content or ""}  # type: ignore[typeddict-item]
        what = "answer" if role == "assistant" else "system prompt" if role == "system" else "question"
        raise ValueError(f"has no {what} (column {column!r} is {'missing or null' if content is None else 'empty'})")
    if not isinstance(content, str):
        if role == "tool":  # what a tool answers is often an object
            return {"role": "tool", "content": _json(content, column)}
        raise ValueError(f"column {column!r} must be text, found {type(content).__name__}")
    return {"role": role, "content": content}  # type: ignore[typeddict-item]


def _json(value: Any, column: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"column {column!r} must be text or plain JSON, found {shown(value)}") from error


_MARKS = {"image": "image", "image_url": "image", "video": "video", "video_url": "video"} | {
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}


def _part(part: Mapping[str, Any] | str) -> str:
    """Return one part of a content list as text; media keep their address in the inline form of `media.py`."""
    if isinstance(part, str):
        return part
    if isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _MARKS:
        raise ValueError(f"unknown content part {shown(dict(part))} (expected text, image, video or audio)")
    medium = _MARKS[kind]
    found = next((part[key] for key in (kind, "url", "path", medium) if part.get(key)), None)
    address = found.get("url") if isinstance(found, Mapping) else found
    return f"<{medium}>{address}</{medium}>" if isinstance(address, str) else f"<{medium}>"


def tool_calls(cell: Any) -> list[ToolCall]:
    """Return tool calls: OpenAI's objects, or `{"name": ..., "arguments": ...}`, one or several, also as text."""
    calls = parsed(cell, "tool_calls")
    calls = [calls] if isinstance(calls, Mapping) else calls
    if not isinstance(calls, list) or not calls:
        raise ValueError(f"tool calls must be a list of objects, found {shown(calls)}")
    return [_call(call) for call in calls]


def _call(call: Any) -> ToolCall:
    call = parsed(call, "tool_calls")
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call must have a name, found {shown(call)}")
    arguments = function.get("arguments", function.get("parameters"))
    arguments = parsed(arguments, "arguments") if arguments not in (None, "") else {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"arguments of a tool call must be an object, found {shown(arguments)}")
    built: ToolCall = {"type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}
    if call.get("id") not in (None, ""):
        built["id"] = str(call["id"])
    return built


def tools(cell: Any) -> list[dict[str, Any]]:
    """Return the functions of a `tools` column in OpenAI's form."""
    listed = parsed(cell, "tools")
    listed = [listed] if isinstance(listed, Mapping) else listed
    if not isinstance(listed, list):
        raise ValueError(f"column 'tools' must be a list of functions, found {shown(listed)}")
    return [_tool(tool) for tool in listed]


def _tool(tool: Any) -> dict[str, Any]:
    tool = parsed(tool, "tools")
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool must have a name, found {shown(tool)}")
    return {"type": "function", "function": dict(function)}


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError(f"{name!r} must be true or false, found {shown(value)}")


_FOLLOWERS = {
    None: {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"tool", "assistant"},
}


def check_order(messages: list[Message]) -> None:
    """Raise `ValueError` unless user and assistant take turns; tools answer assistants."""
    roles: list[str] = [message["role"] for message in messages]
    if roles == ["assistant"]:
        return  # plain text
    before: str | None = None
    for role in roles:
        if role not in _FOLLOWERS[before]:
            found = ", ".join(roles[:8]) + (" ..." if len(roles) > 8 else "")
            raise ValueError(f"turns must alternate user and assistant, found {found}")
        before = role
    if before is None:
        raise ValueError("turns must alternate user and assistant, found none")
