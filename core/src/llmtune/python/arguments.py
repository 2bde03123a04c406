"""The arguments of each command as Python classes: `SftArguments(model_type=..., dataset=[...])`."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llmtune.config.aliases import aliases
from llmtune.config.build import add_options, make_section, options_class
from llmtune.config.command_line import known_flags, read_words
from llmtune.config.commands import CommandConfig
from llmtune.config.flags import Given, Words, split_flags
from llmtune.config.section import extra
from llmtune.config.source import plugin_flags
from llmtune.errors import Problems, UsageError, did_you_mean
from llmtune.pipelines.behaviours import find_behaviours
from llmtune.pipelines.configure import configure
from llmtune.plugins.catalogue import Catalogue
from llmtune.plugins.local import add_local_plugins
from llmtune.plugins.registration import text_list
from llmtune.python.session import current_catalogue


class Arguments:
    """The flags of one command, checked when the object is made; they do not change afterwards.

    Every flag is an attribute, those that were not given with their defaults. Text is understood as on
    the command line, other values are taken as they are. Raises `UsageError` with everything that is
    wrong.
    """

    command: ClassVar[str]

    _given: dict[str, Any]
    """What was passed, for `repr` and for the arguments of another command."""
    _config: CommandConfig
    _catalogue: Catalogue

    def __init__(self, **values: Any) -> None:
        catalogue = _with_files(values.get("custom_register_path"))
        self._take(values, Given({name: _as_given(value) for name, value in values.items()}), catalogue)

    @classmethod
    def from_words(cls, words: Sequence[str]) -> Arguments:
        """Read a list of words as on the command line, a run file included."""
        if isinstance(words, str | bytes) or not isinstance(words, Sequence):
            raise UsageError(
                f"{cls.command} takes a list of words or {cls.__name__}(...), found {reprlib.repr(words)}",
                fix=f"write ['--flag', 'value'] or {cls.__name__}(flag='value')",
            )
        words = [str(word) for word in words]
        catalogue = _with_files(_files_in(words))
        arguments = cls.__new__(cls)
        given = read_words(cls.command, words, catalogue)
        arguments._take(given, given, catalogue)
        return arguments

    def _take(self, shown: Mapping[str, Any], given: Given, catalogue: Catalogue) -> None:
        config, catalogue = configure(self.command, given, catalogue)
        _check(config, catalogue)
        self.__dict__.update(_given=dict(shown), _config=config, _catalogue=catalogue)

    @property
    def given(self) -> dict[str, Any]:
        """What was passed."""
        return dict(self._given)

    @property
    def config(self) -> CommandConfig:
        """The sections that a pipeline takes."""
        return self._config

    @property
    def catalogue(self) -> Catalogue:
        """What was installed and registered when the arguments were made."""
        return self._catalogue

    def __getattr__(self, flag: str) -> Any:
        if flag.startswith("_"):  # also while an object is copied, before it has any attribute
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {flag!r}")
        known = known_flags(self.command, self._catalogue)
        flag = aliases(known).get(flag, flag)
        value = self._config.get(flag, _ABSENT)
        value = _of_plugin(flag, self) if value is _ABSENT else value
        if value is _ABSENT:
            hint = did_you_mean(flag, known)
            raise AttributeError(f"{type(self).__name__} has no {flag!r}" + (f"; {hint}" if hint else ""))
        return value

    def __setattr__(self, flag: str, value: Any) -> None:
        made = f"{type(self).__name__}(**{{**arguments.given, {flag!r}: ...}})"
        raise AttributeError(f"arguments are checked once and do not change; make new ones: {made}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *known_flags(self.command, self._catalogue)]

    def __repr__(self) -> str:
        shown = {flag: "..." if _is_secret(flag, self._config) else value for flag, value in self._given.items()}
        return f"{type(self).__name__}({', '.join(f'{flag}={value!r}' for flag, value in shown.items())})"


_ABSENT = object()


class SftArguments(Arguments):
    """Fine-tuning; docs/commands/sft.md lists them."""

    command = "sft"


class PtArguments(Arguments):
    """Pre-training."""

    command = "pt"


class RLHFArguments(Arguments):
    """Learning from preferences."""

    command = "rlhf"


class InferArguments(Arguments):
    """Answering; docs/commands/infer.md lists them."""

    command = "infer"


class MergeLoraArguments(Arguments):
    """Merging an adapter; SWIFT takes `InferArguments` there, which `merge_lora_main` does too."""

    command = "merge-lora"


class ExportArguments(Arguments):
    """Writing a model in another form."""

    command = "export"


class EvalArguments(Arguments):
    """Benchmarks."""

    command = "eval"


class DeployArguments(Arguments):
    """A server."""

    command = "deploy"


class AppUIArguments(Arguments):
    """A chat page."""

    command = "app-ui"


class WebuiArguments(Arguments):
    """Everything from a browser."""

    command = "web-ui"


def _with_files(paths: Any) -> Catalogue:
    """Register the files first: the flags of their tuners are known only then."""
    return add_local_plugins(current_catalogue(), text_list("custom_register_path", paths))


def _files_in(words: Sequence[str]) -> list[str]:
    return split_flags(words)[1].get("custom_register_path", [])


def _as_given(value: Any) -> Any:
    """Text is a word of the command line: it may be a number, JSON, or one item of a list."""
    if isinstance(value, str | os.PathLike):
        return Words([os.fspath(value)])
    if isinstance(value, tuple):
        value = list(value)
    return [os.fspath(one) if isinstance(one, os.PathLike) else one for one in value] if type(value) is list else value


def _check(config: CommandConfig, catalogue: Catalogue) -> None:
    """Raise what is wrong, options of the tuner, trainer, engine and quantizer included."""
    problems = Problems(config.problems)
    used, extending = find_behaviours(config, catalogue, problems)
    for entry in (*used.values(), *extending):
        problems.collect(add_options, config, entry)
    problems.raise_any()


def _of_plugin(flag: str, arguments: Arguments) -> Any:
    """Return the value of a plugin's flag that the run does not use, or uses for its data only."""
    config = arguments.config
    for name, entry in plugin_flags(arguments.command, arguments.catalogue):
        section = options_class(entry) if name == flag else None
        if section is not None:
            values = {**config.option_defaults, **config.values}
            mine = {one: value for one, value in values.items() if one in section.model_fields}
            return getattr(make_section(section, mine), flag)
    return _ABSENT


def _is_secret(flag: str, config: CommandConfig) -> bool:
    sections = (type(part) for _, part in config.sections())
    return any(flag in section.model_fields and bool(extra(section, flag).get("x-secret")) for section in sections)
