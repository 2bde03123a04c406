"""Write a chat format as the `chat_template` of transformers, and check that both give the same ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from llmtune.errors import DataError, UsageError
from llmtune.interfaces.template import Template
from llmtune.specs import Row, TemplateSpec

_SLOTS = {
    "{{SYSTEM}}": "state.system",
    "{{QUERY}}": "state.query",
    "{{THINKING}}": "(thoughts or '').strip('\\n')",
    "{{ROUND0}}": "state.asked",
    "{{ROUND1}}": "(state.asked + 1)",
}
_SLOT = re.compile("(" + "|".join(map(re.escape, _SLOTS)) + ")")

_THOUGHTS = (
    "{%- set content = message.content or '' %}"
    "{%- set thoughts = message.reasoning_content if message.reasoning_content is string else none %}"
    "{%- if thoughts is none and '</think>' in content and "
    "(content.lstrip().startswith('<think>') or '<think>' not in content) %}"
    "{%- set thoughts = content.split('</think>')[0].split('<think>', 1)[-1] %}"
    "{%- set content = content.split('</think>', 1)[1].lstrip('\\n') %}{%- endif %}"
)
_RESULTS = (
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{%- set state.told = [] %}{%- endif %}"
    "{%- set state.told = state.told + [message] %}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}"
)
_ANSWERED = (  # `answered_calls`: by id, by name, else in order
    "{%- set state.left, state.answered = [], [] %}{%- for call in state.calls %}{%- set state.left = state.left + "
    "[{'id': call.id, 'name': call.function.name, 'arguments': call.function.arguments, 'index': loop.index0}] %}"
    "{%- endfor %}{%- for told in state.told %}{%- set state.found = none %}"
    "{%- for way in ('id', 'name', 'order') %}{%- for call in state.left %}{%- if state.found is none and ("
    "way == 'order' or (way == 'id' and told.tool_call_id and told.tool_call_id == call.id) "
    "or (way == 'name' and told.name and told.name == call.name)) %}"
    "{%- set state.found = call %}{%- endif %}{%- endfor %}{%- endfor %}"
    "{%- set state.answered = state.answered + [state.found] %}{%- if state.found is not none %}"
    "{%- set state.left = state.left | rejectattr('index', 'equalto', state.found.index) | list %}{%- endif %}"
    "{%- endfor %}"
)


def to_jinja(spec: TemplateSpec, tokenizer: Any = None) -> str:
    """Return jinja source for `spec`: system, user, assistant and tool turns, and the generation prompt.

    Ids and unusual attributes of the tokenizer need `tokenizer`; raises `UsageError` without one.
    """
    writer = _Writer(spec, tokenizer)
    return "".join([*writer.macros(), *writer.opening(), *writer.turns(), *writer.generation()])


class _Writer:
    def __init__(self, spec: TemplateSpec, tokenizer: Any) -> None:
        self.spec, self.tools, self.tokenizer = spec, spec.tools_prompt, tokenizer

    def macros(self) -> Iterator[str]:
        """The snippets of the tools prompt; `{{ '' }}` keeps the line breaks at their ends."""
        if self.tools is None:
            return
        for name, arguments in (("describe", "tools, text"), ("call", "calls, content"), ("results", "results, calls")):
            yield (
                f"{{%- macro {name}_tools({arguments}) -%}}{{{{ '' }}}}{getattr(self.tools, name)}"
                "{{ '' }}{%- endmacro -%}"
            )

    def opening(self) -> Iterator[str]:
        default = json.dumps(self.spec.default_system or "", ensure_ascii=False)
        yield f"{{%- set state = namespace(system={default}, query='', asked=0, first=-1, last=-1) %}}"
        if self.tools is not None:
            yield "{%- set state.calls = [] %}"
        yield "{%- if messages[0].role == 'system' %}{%- set state.system = messages[0].content %}"
        yield "{%- set messages = messages[1:] %}{%- endif %}"
        yield "{%- for message in messages %}{%- if message.role == 'user' %}{%- set state.last = loop.index0 %}"
        yield "{%- if state.first < 0 %}{%- set state.first = loop.index0 %}{%- endif %}{%- endif %}{%- endfor %}"
        if self._tools_in("system"):
            yield "{%- if tools %}{%- set state.system = describe_tools(tools, state.system) %}{%- endif %}"
        prefix = self.spec.prefix
        system_prefix = prefix if self.spec.system_prefix is None else self.spec.system_prefix
        plain = [] if any("{{SYSTEM}}" in part for part in prefix if isinstance(part, str)) else prefix
        if self.spec.system_in != "prefix":
            yield self._say(plain, begins=True)
            return
        yield f"{{%- if state.system %}}{self._say(system_prefix, begins=True)}"
        yield f"{{%- else %}}{self._say(plain, begins=True)}{{%- endif %}}"

    def turns(self) -> Iterator[str]:
        yield "{%- for message in messages %}{%- if message.role == 'user' %}"
        yield from self._question()
        yield "{%- elif message.role == 'tool' %}"
        yield from self._results()
        yield "{%- else %}"
        yield from self._answer()
        yield "{%- endif %}{%- endfor %}"

    def generation(self) -> Iterator[str]:
        if self.spec.thinking_prefix:
            yield f"{{%- if add_generation_prompt %}}{self._say(self.spec.thinking_prefix)}{{%- endif %}}"

    # --- turns ------------------------------------------------------------------------------------

    def _question(self) -> Iterator[str]:
        yield "{%- set state.query = message.content %}"
        for place, name in (("first_user", "first"), ("last_user", "last")):
            if self._tools_in(place):
                yield f"{{%- if tools and loop.index0 == state.{name} %}}"
                yield "{%- set state.query = describe_tools(tools, state.query) %}{%- endif %}"
            if self.spec.system_in == place:
                yield f"{{%- if state.system and loop.index0 == state.{name} %}}"
                yield "{%- set state.query = state.system ~ '\\n\\n' ~ state.query %}{%- endif %}"
        if self._tools_in("before_last_user"):
            yield "{%- if tools and loop.index0 == state.last %}{{- describe_tools(tools, '') }}{%- endif %}"
        yield self._say(self.spec.prompt)
        yield "{%- set state.asked = state.asked + 1 %}"

    def _results(self) -> Iterator[str]:
        if self.tools is None:
            yield f"{{{{- raise_exception({json.dumps(f'template {self.spec.name} has no form for tools')}) }}}}"
            return
        by_call = re.search(r"\bcalls\b", self.tools.results) is not None
        yield _RESULTS + (_ANSWERED if by_call else "{%- set state.answered = [] %}")
        yield "{%- set state.query = results_tools(state.told | map(attribute='content') | list, state.answered) %}"
        yield self._say(self.spec.prompt) if self.tools.results_in == "prompt" else "{{- state.query }}"
        yield "{%- endif %}"

    def _answer(self) -> Iterator[str]:
        spec = self.spec
        yield _THOUGHTS
        form, empty = self._say(spec.thinking_form), self._say(spec.thinking_empty)
        shown = "thoughts" if spec.thinking_empty else "thoughts is not none"
        if spec.thinking == "strip_history":
            shown = f"({shown}) and loop.index0 > state.last"
        current = "loop.index0 > state.last" if spec.thinking_prefix else "loop.last"
        hidden = f"{{%- if {current} %}}{form if spec.thinking_prefix else empty}"
        hidden += f"{{%- else %}}{self._say(spec.thinking_stripped)}{{%- endif %}}"
        thoughts = f"{{%- if {shown} %}}{form}{{%- else %}}{hidden}{{%- endif %}}"
        yield thoughts + "{{- content }}"
        ending = (
            f"{{%- if loop.last and not add_generation_prompt %}}{self._say(spec.suffix)}"
            f"{{%- else %}}{self._say(spec.chat_sep or [])}{{%- endif %}}"
        )
        if self.tools is None:
            yield ending
            return
        yield "{%- set state.calls = message.tool_calls or [] %}{%- if message.tool_calls %}"
        yield "{{- call_tools(state.calls | map(attribute='function') | list, content) }}"
        yield (
            f"{{%- endif %}}{{%- if not message.tool_calls %}}{ending}{{%- endif %}}"
            if (self.tools.results_in == "answer")
            else "{%- endif %}" + ending
        )

    # --- parts ------------------------------------------------------------------------------------

    def _tools_in(self, place: str) -> bool:
        return self.tools is not None and self.tools.tools_in == place

    def _say(self, parts: Iterable[Any], *, begins: bool = False) -> str:
        """Return a jinja expression that joins the parts: quoted text, slots and tokens."""
        terms: list[str] = []
        for part in parts:
            if isinstance(part, str):
                terms += [_SLOTS.get(stretch) or _quoted(stretch) for stretch in _SLOT.split(part) if stretch]
            else:
                terms += [self._token(token) for token in part]
        if begins and self.spec.auto_add_bos:
            terms = self._leading(terms)
        return f"{{{{- {' ~ '.join(terms)} }}}}" if terms else ""

    def _leading(self, terms: list[str]) -> list[str]:
        """Put what the tokenizer begins every text with first, unless it stands there."""
        if self.tokenizer is None:
            return terms if terms[:1] == ["bos_token"] else ["(bos_token or '')", *terms]
        from llmtune.template.vocabulary import Vocabulary

        texts = [self.tokenizer.convert_ids_to_tokens(token) for token in Vocabulary(self.tokenizer).leading]
        start = "".join(texts)
        known = {"bos_token": self.tokenizer.bos_token, "eos_token": self.tokenizer.eos_token}
        written = "".join(known.get(term) or (json.loads(term) if term.startswith('"') else "") for term in terms)
        return terms if not start or written.startswith(start) else [_quoted(start), *terms]

    def _token(self, token: int | str) -> str:
        if token in ("bos_token_id", "eos_token_id", "pad_token_id"):
            return str(token).removesuffix("_id")  # transformers gives these to every chat template
        if self.tokenizer is None:
            raise UsageError(
                f"template {self.spec.name!r} is written with the token {token}, whose text depends on the model",
                fix="add --tokenizer FOLDER (llmtune templates show)",
            )
        number = token if isinstance(token, int) else getattr(self.tokenizer, token)
        return _quoted(self.tokenizer.convert_ids_to_tokens(number))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- the check ------------------------------------------------------------------------------------

_TALK: list[Any] = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "您好!"},
    {"role": "user", "content": "  spaces\n\nand lines  "},
    {"role": "assistant", "content": "ok\n"},
]
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
_CALLED: list[Any] = [
    {"role": "user", "content": "How is the weather?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}],
    },
    {"role": "tool", "content": '{"sky": "blue"}'},
    {"role": "assistant", "content": "It is fine."},
]
_BATTERY: list[Row] = [
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}]},
    {"system": "Be brief.", "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]},
    {"system": "你是助手", "messages": _TALK},
    {
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "reasoning_content": "One and one.", "content": "2"},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "reasoning_content": "Yes.\n\nI counted.", "content": "Yes."},
        ]
    },
    {"tools": [_TOOL], "messages": _CALLED},
    {"system": "Be brief.", "tools": [_TOOL, _TOOL], "messages": [*_CALLED, *_TALK]},
]


def same_ids(template: Template, tokenizer: Any) -> bool:
    """Whether the tokenizer, with the template's jinja form, gives the template's own ids."""
    source = template.carried()
    if not isinstance(source, str):
        return True  # those that the tokenizer carries already
    return all(jinja_ids(row, source, tokenizer) == ids for row, ids in _encoded_battery(template))


def _encoded_battery(template: Template) -> Iterator[tuple[Row, list[int]]]:
    """Yield the rows that the template has a form for (it may lack system prompts or further turns)."""
    for row in _BATTERY:
        try:
            yield row, template.encode(row)["input_ids"]
        except DataError:
            continue


def jinja_ids(row: Row, source: str | None, tokenizer: Any) -> list[int]:
    """Return the ids of a row through `apply_chat_template`; without `source` the tokenizer's own template is used."""
    turns: list[Any] = list(row["messages"])
    if "system" in row:
        turns = [{"role": "system", "content": row["system"]}, *turns]
    tools = row.get("tools")
    text = tokenizer.apply_chat_template(turns, tools=tools, chat_template=source, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
