"""Validate what was given for the flags of a command, and build its configuration."""

from __future__ import annotations

import importlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from llmtune.config.checks import problems_of
from llmtune.config.commands import CommandConfig
from llmtune.config.flags import Given, Words
from llmtune.config.section import Section, pending_flags
from llmtune.errors import PluginFailed, UsageError
from llmtune.plugins.catalogue import Entry

Config = TypeVar("Config", bound=CommandConfig)
_HELP = "--help lists every option with its values"


def build_config(config_class: type[Config], given: Given, user: frozenset[str] | None = None) -> Config:
    """Validate the core flags among `given`.

    Values of the wrong form are raised together. What the flags say against each other, and what is not
    available yet, is kept as `config.problems`: names and plugins' options are checked first, so that
    the user sees all at once. `user` are the flags that the user gave, where others came from a checkpoint.
    """
    sections, malformed = {}, []
    for name, default in default_sections(config_class).items():
        mine = {flag: value for flag, value in given.items() if flag in type(default).model_fields}
        try:
            sections[name] = make_section(type(default), {**default.model_dump(), **mine}, given.place)
        except UsageError as error:
            malformed.append(error.problem)
            sections[name] = default
    config = config_class.model_validate(sections)
    config._values = given
    config._from_user = frozenset(given) if user is None else user
    pending = [f"{given.place(flag)} is not available yet" for flag in _pending(config)]
    config._problems = (*pending, *problems_of(config))
    if malformed:
        raise UsageError("\n".join([*malformed, *config.problems]), fix=_HELP)
    return config


def default_sections(config_class: type[CommandConfig]) -> dict[str, Section]:
    """Return attribute -> section with the command's defaults."""
    fields = config_class.model_fields.items()
    return {name: field.get_default(call_default_factory=True) for name, field in fields}


def _pending(config: CommandConfig) -> list[str]:
    defaults = default_sections(type(config))
    return [flag for name, part in config.sections() for flag in pending_flags(part, defaults[name])]


def add_options(config: CommandConfig, entry: Entry) -> None:
    """Validate the options of `entry` (a tuner, an engine ...) and keep them on the config."""
    made = read_options(config, entry)
    if made is not None:
        config._options = {**config._options, (entry.kind, entry.name): made}


def read_options(config: CommandConfig, entry: Entry) -> Section | None:
    """Return the validated options of `entry`, None where it has no flags."""
    options = options_class(entry)
    if options is None:
        return None
    given = config.values
    base = {flag: value for flag, value in config.option_defaults.items() if flag in options.model_fields}
    mine = {flag: value for flag, value in given.items() if flag in options.model_fields}
    made = make_section(options, {**base, **mine}, given.place)
    wrong = [f"{given.place(flag)} is not available yet" for flag in pending_flags(made, options(**base))]
    if wrong:
        raise UsageError("\n".join(wrong), fix=_HELP)
    return made


def is_asked_for(config: CommandConfig, entry: Entry) -> bool:
    """Whether the flag under the fact `when` was given another value than its default."""
    flag = entry.facts.get("when")
    if flag is None or flag not in config.values:
        return False
    made = read_options(config, entry)
    return made is not None and getattr(made, flag) != type(made).model_fields[flag].default


def options_class(entry: Entry) -> type[Section] | None:
    """Import the options class of `entry`."""
    target = entry.facts.get("options")
    if target is None or isinstance(target, type):
        return target
    module, _, name = target.partition(":")
    try:
        found: type[Section] = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise PluginFailed(
            f"the options of {entry.kind} {entry.name!r} in plugin {entry.plugin} failed: "
            f"{type(error).__name__}: {error}",
            fix=f"llmtune plugins doctor {entry.plugin.name}",
        ) from error
    return found


def make_section(
    section: type[Section], values: Mapping[str, Any], place: Callable[[str], str] = "--{}".format
) -> Section:
    """Validate one section; raise `UsageError` with one line per wrong flag.

    A value is a `Words` from the command line, or typed already; `place` says where a flag stands.
    """
    problems, given = [], {}
    for flag, value in values.items():
        try:
            given[flag] = _typed(place(flag), section.model_fields[flag], value)
        except UsageError as error:
            problems.append(f"{error.problem}; {error.fix}")
    try:
        made = section(**given)
    except ValidationError as error:
        problems += [_describe(problem, place) for problem in error.errors()]
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)), fix=_HELP)
    return made


def _describe(problem: Any, place: Callable[[str], str]) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # of several flags, which the message names
        return str(message)
    found = "" if problem["type"] == "missing" else f", found {_short(problem['input'])}"
    return f"{place(str(problem['loc'][0]))}: {message[:1].lower()}{message[1:]}{found}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _typed(place: str, field: FieldInfo, value: Any) -> Any:
    if value is None and field.default == "AUTO":
        value = "None"
    if not isinstance(value, Words):
        return _plain(field, value) if isinstance(value, str) else value
    kinds = _kinds(field.annotation)
    if list in kinds and dict not in kinds:  # of a mapping or a list of mappings one word says all, as JSON or a path
        return None if list(value) == ["None"] and types.NoneType in kinds else _items(field, value)
    if not value and bool in kinds:
        return True
    if len(value) != 1:
        found = "none" if not value else ", ".join(map(repr, value))
        raise UsageError(f"{place} takes one value, found {found}", fix="give it once, and quote a value with spaces")
    word = _plain(field, value[0])
    return _json(place, word, kinds) if dict in kinds and isinstance(word, str) else word


def _items(field: FieldInfo, words: list[str]) -> list[str | None]:
    """Understand None among the words where the list may hold it, as in `--model_name None Ada`."""
    holds_none = field.annotation == list[str | None]
    return [None if holds_none and word == "None" else word for word in words]


def _plain(field: FieldInfo, word: str) -> Any:
    """Understand None, also where SWIFT of 2023 wrote None for today's AUTO, and numbers among choices."""
    if word in ("None", "none", "null"):
        if types.NoneType in _kinds(field.annotation):
            return None
        if field.default == "AUTO":
            return "AUTO"
    numbers = {str(choice): choice for choice in _numbers(field.annotation)}
    return numbers.get(word, word)


class _Choices:
    """Marks a `Literal` among the kinds of an annotation."""


def _kinds(annotation: Any) -> set[Any]:
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return {kind for part in typing.get_args(annotation) for kind in _kinds(part)}
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    return {_Choices} if origin is Literal else {origin or annotation}


def _numbers(annotation: Any) -> list[int]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [number for part in typing.get_args(annotation) for number in _numbers(part)]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    return [choice for choice in choices if isinstance(choice, int)]


def _json(place: str, word: str, kinds: set[Any]) -> Any:
    if str in kinds and not word.lstrip().startswith(("{", "[")):  # a name or a path
        return word
    try:
        return json.loads(word)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets in brackets ...
        raise UsageError(f"{place} takes a JSON mapping: {error}", fix="""write it as '{"key": "value"}'""") from error


def replaced(config: Config, section: str, **values: Any) -> Config:
    """Return the config with some resolved values in one section."""
    changed = make_section(type(getattr(config, section)), {**getattr(config, section).model_dump(), **values})
    return config.model_copy(update={section: changed})
