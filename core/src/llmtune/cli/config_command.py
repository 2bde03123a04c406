"""Commands with a configuration (sft, infer, inspect ...): flags and run file in, a pipeline called.

Typer is not used here: the flags come from pydantic sections and from plugins' options, lists take
several words (`--dataset a b`), and a misspelt flag must be answered before pydantic is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmtune.config import environment
from llmtune.config.command_line import read_words

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation


@dataclass(frozen=True)
class ConfigCommand:
    """A command whose flags come from `config/commands.py`."""

    name: str
    records_local_files = True
    """`main` leaves --custom_register_path among the arguments: it belongs to the configuration."""

    def __call__(self, arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
        if any(word in ("-h", "--help") for word in arguments):
            from llmtune.cli.help import print_help

            asked_first = arguments[0] in ("-h", "--help")
            print_help(self.name, obj.catalogue, about=arguments[1:] if asked_first else ())
            return 0
        given = read_words(self.name, arguments, obj.catalogue)
        from llmtune.pipelines.configure import configure
        from llmtune.pipelines.run import run, trains

        config, catalogue = configure(self.name, given, obj.catalogue, warn=_say_once)
        if trains(self.name, config):
            from llmtune.cli.launch import launch

            code = launch([*_switches(obj), self.name, *arguments])
            if code is not None:
                return code
        run(self.name, config, catalogue)
        return 0


def _say_once(line: str) -> None:
    """The processes of a launch read the same flags again; their launcher has said it."""
    if not environment.is_launched():
        print(line, file=sys.stderr)


def _switches(obj: Invocation) -> list[str]:
    """Return `-p no:NAME` for each plugin that is off, for the other processes."""
    off = [plugin.name for plugin in obj.catalogue.plugins if plugin.state == "disabled"]
    return [word for name in off for word in ("-p", f"no:{name}")]
