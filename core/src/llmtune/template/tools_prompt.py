"""How tools are told to a model, how it calls them, and how it is given their answers.

A tools prompt is data: three snippets of jinja (`ToolsPromptSpec`). What a snippet prints from a row
(`{{ ... }}`) stays text; only what stands in the snippet itself can be a control token. The same snippets
become part of the `chat_template` that checkpoints carry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

from llmtune.errors import DataError, UsageError
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.specs import Message, ToolCall, ToolsPromptSpec
from llmtune.template.tool_results import answered_calls

Stretch = tuple[str, bool]
"""(text, whether it comes from a row)."""

_MARK = "\ufdd0"  # a noncharacter: no text has it, and none is printed, only its number
_SPACES = re.compile(r"\s*")
_NUMBER = re.compile(f"{_MARK}(\\d+){_MARK}")


class ToolsPrompt:
    """Renders one format, and reads it back.

    In its `pattern` the group `json`, `arguments` or `pairs` (`value` in its `pair`) is written with `.*?`: alone for
    any text, with what JSON ends with behind it where nothing else will do.
    """

    def __init__(self, spec: ToolsPromptSpec) -> None:
        self.spec = spec

    def describe(self, tools: Sequence[Mapping[str, Any]], text: str | None) -> list[Stretch]:
        """Return the tools with the system prompt, or with the question (`tools_in`), that they go with."""
        return self._render(self.spec.describe, tools=tools, text=text or "")

    def call(self, message: Message) -> list[Stretch]:
        """Return what follows the content of an assistant turn that calls tools."""
        calls = [call["function"] for call in message.get("tool_calls", [])]
        return self._render(self.spec.call, calls=calls, content=message["content"])

    def results(self, messages: Sequence[Message], asked: Message | None) -> list[Stretch]:
        """Return what tools gave after the assistant turn `asked`; the snippet knows which call each answers."""
        calls = (asked or {}).get("tool_calls", [])
        answered = [
            None if place is None else {**calls[place]["function"], "index": place}
            for place in answered_calls(messages, calls)
        ]
        return self._render(self.spec.results, results=[message["content"] for message in messages], calls=answered)

    def parse(self, text: str) -> tuple[str, list[ToolCall]]:
        """Return the content of a generated answer and the calls in it; text that is no call stays content.

        Content is what stands before the first call.
        """
        found = list(self._found(text))
        calls = [call for _, several in found for call in several]
        return (text[: found[0][0]].rstrip(), calls) if found else (text, [])

    # --- details ----------------------------------------------------------------------------------

    @cached_property
    def _form(self) -> _Form | None:
        return _form(self.spec.pattern)

    @cached_property
    def _pair(self) -> _Form | None:
        return _form(self.spec.pair)

    def _found(self, text: str) -> Iterator[tuple[int, list[ToolCall]]]:
        """Yield (start, calls) of each place where the model calls; all of them together read the text once."""
        place = 0
        while self._form and (opened := self._form.opening.search(text, place)):
            # An opening may be empty, and what looks like one may be followed by the real one.
            place = max(opened.end(), opened.start() + 1)
            inner = self._form.inner(text, opened.end())
            if inner is None:
                continue
            if inner.end < 0:
                return  # nothing is closed from here on
            place = max(place, inner.end)
            calls = self._calls(opened.groupdict(), inner)
            if calls:
                yield opened.start(), calls

    def _calls(self, groups: Mapping[str, str], inner: _Inner) -> list[ToolCall]:
        assert self._form is not None
        if self._form.group == "json":
            made = [_call(one) for one in (inner.value if isinstance(inner.value, list) else [inner.value])]
            return [call for call in made if call] if all(made) else []
        arguments: Any = inner.value
        if self._form.group == "pairs":
            arguments = self._pairs(inner.value)
        elif isinstance(inner.value, str):
            arguments = _text_argument(inner.value)
        call = _call({"name": groups["name"].strip(), "arguments": arguments})
        return [call] if call else []

    def _pairs(self, text: str) -> dict[str, Any]:
        if self._pair is None:  # `value` cannot be told apart from what closes it
            pairs = re.finditer(self.spec.pair, text, re.DOTALL)
            return {pair["key"].strip(): _value(pair["value"]) for pair in pairs}
        arguments, place = {}, 0
        while opened := self._pair.opening.search(text, place):
            inner = self._pair.inner(text, opened.end())
            if inner is None or inner.end < 0:
                break
            arguments[opened["key"].strip()] = _value(inner.value)
            place = inner.end
        return arguments

    def _render(self, snippet: str, **variables: Any) -> list[Stretch]:
        from jinja2 import TemplateSyntaxError

        printed: list[str] = []
        try:
            text = _compiled(snippet).render(**variables, __printed=printed)
        except TemplateSyntaxError as error:
            raise UsageError(f"tools prompt {self.spec.name!r} is no jinja: {error}") from error
        except Exception as error:  # a snippet that cannot take what this row has
            raise DataError(f"tools prompt {self.spec.name!r} cannot tell the row's tools: {error}") from error
        parts = _NUMBER.split(text)
        stretches = [(printed[int(part)], True) if place % 2 else (part, False) for place, part in enumerate(parts)]
        return [(part, from_row) for part, from_row in stretches if part]


@cache
def _compiled(snippet: str) -> Any:
    return snippet_environment().from_string(snippet)


@cache
def snippet_environment() -> Any:
    """The jinja environment of transformers' chat templates, which notes what a snippet prints."""
    from jinja2 import pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    @pass_context
    def note(context: Any, value: Any) -> str:
        printed = context["__printed"]
        printed.append(str(value))
        return f"{_MARK}{len(printed) - 1}{_MARK}"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=note
    )
    environment.filters["tojson"] = to_json
    return environment


def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """`tojson` as transformers has it: characters stay as they are. A tool that has no parameters takes none: {}."""
    from jinja2 import Undefined

    value = {} if isinstance(value, Undefined) else value
    return json.dumps(value, ensure_ascii=False, indent=indent)


class _Inner(NamedTuple):
    """What stands between an opening and what closes it."""

    value: Any
    """Read JSON, or text."""
    end: int
    """Where what closes it ends; -1 where nothing does, here or later."""


class _Form(NamedTuple):
    """A regular expression in parts: before the group that holds the arguments, and behind it.

    Its `.*?` is never matched as such. JSON is read as JSON, so what closes a call may stand inside of a text; other
    text goes up to the next closing, so that thousands of openings are no quadratic search.
    """

    opening: re.Pattern[str]
    group: str
    is_json: bool
    closing: re.Pattern[str]

    def inner(self, text: str, start: int) -> _Inner | None:
        """Return what begins at `start`, None where it is not what the format wants there."""
        value, end = (None, start) if self.group in ("pairs", "value") else _json_at(text, start)
        wanted = isinstance(value, dict) or (self.group == "json" and isinstance(value, list))
        closed = self.closing.match(text, end) if wanted else None
        if closed:
            return _Inner(value, closed.end())
        if self.is_json:
            return None
        closed = self.closing.search(text, start)
        return _Inner(text[start : closed.start()], closed.end()) if closed else _Inner("", -1)


_GROUP = re.compile(r"\(\?P<(json|arguments|pairs|value)>(.*?)\.\*\?([^()]*)\)")


def _form(pattern: str) -> _Form | None:
    """Take a pattern apart; None where it has no such group, or where what closes it looks back at what opened it."""
    found = _GROUP.search(pattern)
    if found is None:
        return None
    before, behind = pattern[: found.start()], pattern[found.end() :]
    group, begins, ends = found.groups()
    try:
        closing = re.compile(behind, re.DOTALL)
    except re.error:
        return None
    return _Form(re.compile(f"{before}(?={begins})", re.DOTALL), group, group == "json" or bool(ends), closing)


def _json_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON object or list that begins at `start` (after spaces) and where it ends, None where none does."""
    spaces = _SPACES.match(text, start)
    at = spaces.end() if spaces else start
    if not text.startswith(("{", "["), at):
        return None, start
    try:
        value, length = json.JSONDecoder().raw_decode(text[at:])  # its errors count the lines before them
    except (ValueError, RecursionError):
        return None, start
    return value, at + length


def _call(found: Any) -> ToolCall | None:
    """Return the call that an object describes, in one of the ways that models write it."""
    if not isinstance(found, dict):
        return None
    name = found.get("name", found.get("function"))
    arguments = found.get("arguments", found.get("parameters"))
    if isinstance(arguments, str):
        arguments, _ = _json_at(arguments, 0)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _value(text: str) -> Any:
    """Return an argument that stands between tags: JSON where it is a number, list or object, else text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(found, str) else found


def _text_argument(text: str) -> dict[str, Any] | None:
    """A model that was asked for text (`Action Input: Berlin`) gives it as the only argument.

    Nothing at all is a call that broke off, and so is the beginning of an object.
    """
    text = text.strip()
    return {"input": text} if text and not text.startswith("{") else None


def find_tools_prompt(name: str, template: Entry | None, catalogue: Catalogue) -> Entry | None:
    """Return the owner of --tools_prompt; AUTO is the template's own, None where that is not installed."""
    if name != "AUTO":
        return catalogue.find("tools_prompt", name)
    own = (template.facts if template else {}).get("tools_prompt", "react_en")
    return catalogue.find("tools_prompt", own) if own in catalogue.names("tools_prompt") else None
