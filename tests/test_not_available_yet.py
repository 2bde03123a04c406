"""Flags that are understood but not available yet: their defaults pass, other values are refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from configuring import as_words, called, installed

from llmtune import config
from llmtune.config.build import default_sections, make_section, options_class
from llmtune.config.commands import COMMANDS
from llmtune.config.flags import Words
from llmtune.config.section import Section, extra
from llmtune.config.source import OPTION_KINDS, read_flags
from llmtune.errors import UsageError

SPECIAL = {"eval_limit": ("5",)}
"""Words for flags that take no text or number of any kind."""


def sections(command: str) -> Iterator[Section]:
    yield from default_sections(COMMANDS[command]).values()
    for kind in OPTION_KINDS[command]:
        for entry in installed().entries(kind):
            options = options_class(entry)
            if options is not None:
                yield options()


def pending() -> Iterator[tuple[str, str, Section]]:
    """Yield (command, flag, section) of everything that is marked, for every command."""
    for command in COMMANDS:
        for section in sections(command):
            for flag in type(section).model_fields:
                if extra(type(section), flag).get("x-pending"):
                    yield command, flag, section


PENDING = list(pending())
IDS = [f"{command} {flag}" for command, flag, _ in PENDING]


def other_value(section: Section, flag: str) -> tuple[str, ...]:
    """Return words for a value that is valid and neither the default nor one that works."""
    if flag in SPECIAL:
        return SPECIAL[flag]
    default, works = getattr(section, flag), extra(type(section), flag)["x-works"]
    for words in candidates(section, flag):
        try:
            value = getattr(make_section(type(section), {flag: Words(words)}), flag)
        except UsageError:
            continue
        if value != default and value not in works:
            return words
    raise AssertionError(f"no value found for {flag}")


def candidates(section: Section, flag: str) -> Iterator[tuple[str, ...]]:
    schema = type(section).model_json_schema()["properties"][flag]
    for one in schema.get("anyOf", [schema]):
        yield from ((str(choice),) for choice in one.get("enum", []))
    default = getattr(section, flag)
    if isinstance(default, int | float) and not isinstance(default, bool):
        yield from ((str(default + step),) for step in (1, -1, 0.125, -0.125))
    yield from (("true",), ("false",), ("3",), ("0.125",), ("something",), ("None",))


@pytest.mark.parametrize(("command", "flag", "section"), PENDING, ids=IDS)
def test_a_value_other_than_the_default_is_refused_by_name(command: str, flag: str, section: Section) -> None:
    with pytest.raises(UsageError) as caught:
        called(command, f"--{flag}", *other_value(section, flag), "--print_config")
    assert f"--{flag} is not available yet" in caught.value.problem


@pytest.mark.parametrize(("command", "flag", "section"), PENDING, ids=IDS)
def test_the_default_and_what_works_already_pass(command: str, flag: str, section: Section) -> None:
    values = [COMMANDS[command]().get(flag, getattr(section, flag)), *extra(type(section), flag)["x-works"]]
    for value in values:
        called(command, f"--{flag}", *as_words(value), "--print_config")


def test_what_works_already_is_tried() -> None:
    works = {flag: extra(type(section), flag)["x-works"] for _, flag, section in PENDING}
    assert works["loss_type"] == ["sigmoid"]


@pytest.mark.parametrize(
    ("command", "words", "problem"),
    [
        ("infer", ["--infer_backend", "lmdeploy"], "--infer_backend lmdeploy is not available yet"),
        ("sft", ["--quant_method", "aqlm", "--quantization_bit", "4"], "--quant_method aqlm is not available yet"),
    ],
)
def test_a_name_that_swift_has_is_told_from_a_mistake(command: str, words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        called(command, *words, "--print_config")
    assert (caught.value.problem, "lists what is" in caught.value.fix) == (problem, True)


def test_the_source_says_the_same_as_the_classes() -> None:
    """Help reads the marks from the source; the check reads them from the classes."""
    folder = Path(config.__file__).parent
    for command in COMMANDS:
        for name, section in default_sections(COMMANDS[command]).items():
            for flag in read_flags(folder / f"{name}.py", type(section).__name__):
                notes = extra(type(section), flag.name)
                assert (flag.pending, flag.secret) == ("x-pending" in notes, "x-secret" in notes), flag.name
