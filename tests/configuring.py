"""Words to a configuration, as `llmtune COMMAND WORDS` does it, with one catalogue for all tests."""

from __future__ import annotations

import contextlib
import io
from functools import cache

from llmtune.cli.config_command import ConfigCommand
from llmtune.cli.invocation import Invocation
from llmtune.config.command_line import read_words
from llmtune.config.commands import CommandConfig
from llmtune.config.source import option_names
from llmtune.pipelines.configure import configure
from llmtune.plugins.catalogue import Catalogue, Entry, discover
from llmtune.plugins.manifest import KINDS


@cache
def installed() -> Catalogue:
    """Return the catalogue of the installed plugins."""
    return discover()


def configured(command: str, *words: str) -> CommandConfig:
    """Return the configuration; nothing of plugins is validated yet."""
    return configure(command, read_words(command, words, installed()), installed())[0]


def called(command: str, *words: str) -> str:
    """Call the command itself and return what it prints; errors pass through."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = ConfigCommand(command)(words, prog_name=f"llmtune {command}", obj=Invocation(installed(), command))
    assert code == 0
    return out.getvalue()


def owners(flag: str) -> list[Entry]:
    """Return the entries of installed plugins whose options have `flag`."""
    return [entry for kind in KINDS for entry in installed().entries(kind) if flag in option_names(entry)]


def as_words(value: object) -> list[str]:
    """Return the words that give `value` on the command line."""
    if isinstance(value, list):
        return list(map(str, value))
    return [str(value).lower() if isinstance(value, bool) else str(value)]
