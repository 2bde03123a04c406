"""Write a chat format as the `chat_template` of transformers, and check that both give the same ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from llmtune.errors import DataError
from llmtune.interfaces.template import Template
from llmtune.specs import Row, TemplateSpec

_SLOTS = {"{{SYSTEM}}": "system", "{{QUERY}}": "message['content']"}


def to_jinja(spec: TemplateSpec, tokenizer: Any) -> str:
    """Return jinja source for `spec`: system, user and assistant turns, and the generation prompt."""
    system_parts = spec.system_prefix if spec.system_prefix is not None else spec.prefix
    has_system = any(isinstance(part, str) and "{{SYSTEM}}" in part for part in system_parts)
    plain_prefix = [] if spec.system_prefix is None and has_system else spec.prefix

    def say(parts: Iterable[Any] | None) -> str:
        expression = _expression(parts or [], tokenizer)
        return f"{{{{- {expression} }}}}" if expression else ""

    lines = [
        f"{{%- set system = {json.dumps(spec.default_system or '', ensure_ascii=False)} %}}",
        "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
        "{%- set messages = messages[1:] %}{%- endif %}",
        f"{{%- if system %}}{say(system_parts) if has_system else ''}{{%- else %}}{say(plain_prefix)}{{%- endif %}}",
        "{%- for message in messages %}",
        "{%- if message['role'] == 'user' %}" + say(spec.prompt) + "{%- else %}",
        "{{- message['content'] }}",
        f"{{%- if loop.last and not add_generation_prompt %}}{say(spec.suffix)}",
        f"{{%- else %}}{say(spec.chat_sep)}{{%- endif %}}",
        "{%- endif %}",
        "{%- endfor %}",
    ]
    return "".join(lines)


def _expression(parts: Iterable[Any], tokenizer: Any) -> str:
    """Return a jinja expression that joins the parts: quoted text, slots and round numbers."""
    terms: list[str] = []
    for part in parts:
        text = part if isinstance(part, str) else "".join(_token_text(token, tokenizer) for token in part)
        for slot in (*_SLOTS, "{{ROUND0}}", "{{ROUND1}}"):
            text = text.replace(slot, f"\0{slot}\0")
        terms += [_term(stretch) for stretch in text.split("\0") if stretch]
    return " ~ ".join(terms)


def _term(stretch: str) -> str:
    rounds = {"{{ROUND0}}": "loop.index0 // 2", "{{ROUND1}}": "(loop.index0 // 2 + 1)"}
    return _SLOTS.get(stretch) or rounds.get(stretch) or json.dumps(stretch, ensure_ascii=False)


def _token_text(token: int | str, tokenizer: Any) -> str:
    number = token if isinstance(token, int) else getattr(tokenizer, token)
    text: str = tokenizer.convert_ids_to_tokens(number)
    return text


_BATTERY: list[Row] = [
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}]},
    {"system": "Be brief.", "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]},
    {
        "system": "你是助手",
        "messages": [
            {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "您好!"},
            {"role": "user", "content": "  spaces\n\nand lines  "},
            {"role": "assistant", "content": "ok\n"},
        ],
    },
]


def same_ids(template: Template, tokenizer: Any) -> bool:
    """Whether the tokenizer, with the template's jinja form, gives the template's own ids."""
    source = template.jinja()
    return all(_jinja_ids(row, source, tokenizer) == ids for row, ids in _encoded_battery(template))


def _encoded_battery(template: Template) -> Iterator[tuple[Row, list[int]]]:
    """Yield the rows that the template has a form for (it may lack system prompts or further turns)."""
    for row in _BATTERY:
        try:
            yield row, template.encode(row)["input_ids"]
        except DataError:
            continue


def _jinja_ids(row: Row, source: str, tokenizer: Any) -> list[int]:
    turns: list[Any] = list(row["messages"])
    if "system" in row:
        turns = [{"role": "system", "content": row["system"]}, *turns]
    text = tokenizer.apply_chat_template(turns, chat_template=source, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
