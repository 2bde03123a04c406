"""Build the configuration of a command from flags, a run file, or both."""

from __future__ import annotations

import importlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from llmtune.config.commands import CommandConfig
from llmtune.config.section import Section
from llmtune.errors import PluginFailed, UsageError
from llmtune.plugins.catalogue import Entry

Config = TypeVar("Config", bound=CommandConfig)


def build_config(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Validate the core flags among `values`; all wrong values are reported together.

    A value is a list of words (from the command line) or already typed (from a run file).
    """
    sections, problems = {}, []
    for name, field in config_class.model_fields.items():
        default: Section = field.get_default(call_default_factory=True)
        given = {flag: value for flag, value in values.items() if flag in type(default).model_fields}
        try:
            sections[name] = make_section(type(default), {**default.model_dump(), **given})
        except UsageError as error:
            problems.append(error.problem)
    if problems:
        raise UsageError("\n".join(problems), fix="--help lists every option with its values")
    config = config_class.model_validate(sections)
    config._given = frozenset(values)
    return config


def add_options(config: CommandConfig, entry: Entry, values: Mapping[str, Any]) -> None:
    """Validate the options of `entry` (a tuner, an engine ...) and keep them on the config."""
    options = options_class(entry)
    if options is None:
        return
    given = {flag: value for flag, value in values.items() if flag in options.model_fields}
    config._options = {**config._options, (entry.kind, entry.name): make_section(options, given)}


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


def make_section(section: type[Section], values: Mapping[str, Any]) -> Section:
    """Validate one section; raise `UsageError` with one line per wrong flag.

    A value is a `Words` from the command line, or typed already.
    """
    problems, given = [], {}
    for flag, value in values.items():
        try:
            given[flag] = _typed(flag, section.model_fields[flag], value)
        except UsageError as error:
            problems.append(f"{error.problem}; {error.fix}")
    try:
        made = section(**given)
    except ValidationError as error:
        problems += map(_describe, error.errors())
    if problems:
        raise UsageError("\n".join(problems), fix="--help lists every option with its values")
    return made


def _describe(problem: Any) -> str:
    flag = "--" + str(problem["loc"][0]) if problem["loc"] else "options"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
    return f"{flag}: {message[:1].lower()}{message[1:]}{found}"


def _typed(flag: str, field: FieldInfo, value: Any) -> Any:
    if not isinstance(value, Words):
        return value
    kinds = _kinds(field.annotation)
    if list in kinds:
        return list(value)
    if not value and bool in kinds:
        return True
    if len(value) != 1:
        found = "none" if not value else ", ".join(map(repr, value))
        raise UsageError(f"--{flag} takes one value, found {found}", fix="give it once, and quote a value with spaces")
    word = value[0]
    if types.NoneType in kinds and word in ("None", "none", "null"):
        return None
    return _json(flag, word) if dict in kinds else word


class Words(list[str]):
    """The words that followed a flag on the command line."""


def _kinds(annotation: Any) -> set[Any]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return {kind for part in typing.get_args(annotation) for kind in _kinds(part)}
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    return {typing.get_origin(annotation) or annotation}


def _json(flag: str, word: str) -> Any:
    try:
        return json.loads(word)
    except json.JSONDecodeError as error:
        raise UsageError(f"--{flag} takes a JSON mapping: {error}", fix="""write it as '{"key": "value"}'""") from error


def replaced(config: Config, section: str, **values: Any) -> Config:
    """Return the config with some resolved values in one section."""
    changed = make_section(type(getattr(config, section)), {**getattr(config, section).model_dump(), **values})
    return config.model_copy(update={section: changed})
