"""`llmtune flags`: the flags of every command, and which of them are not available yet."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmtune.cli.help import shown_default
from llmtune.config.source import OPTION_KINDS, Flag, Panel, panels
from llmtune.errors import UnknownName, did_you_mean
from llmtune.table import text_table

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation
    from llmtune.plugins.catalogue import Catalogue


def app(arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
    """Print a table, or JSON."""
    given = _parser(prog_name).parse_args(arguments)
    if given.command and given.command not in OPTION_KINDS:
        raise UnknownName(
            f"no flags for command {given.command!r}",
            fix=did_you_mean(given.command, OPTION_KINDS) or f"one of {', '.join(OPTION_KINDS)}",
        )
    rows = list(_merged(given.command, obj.catalogue, pending=given.pending))
    if given.json:
        facts = [{**dataclasses.asdict(flag), "section": panel.title, "commands": on} for flag, panel, on in rows]
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    header = ["FLAG", "DEFAULT", "SECTION", "COMMANDS", "HELP"]
    print(text_table(header, [_cells(*row) for row in rows]))
    return 0


def _parser(prog_name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog_name, description="List the flags of the commands with a configuration.")
    parser.add_argument("command", nargs="?", default="", help="one command; all without it")
    parser.add_argument("--pending", action="store_true", help="only what is understood, but not available yet")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    return parser


def _merged(command: str, catalogue: Catalogue, *, pending: bool) -> Iterator[tuple[Flag, Panel, list[str]]]:
    """Yield each flag once, with the commands that have it; flags that differ between commands come apart."""
    found: dict[tuple[str, str], tuple[Flag, Panel, list[str]]] = {}
    for name in [command] if command else OPTION_KINDS:
        for panel in panels(name, catalogue):
            for flag in panel.flags:
                key = (flag.name, repr(flag.default))
                commands = found.setdefault(key, (flag, panel, []))[2]
                if name not in commands:
                    commands.append(name)
    for flag, panel, commands in found.values():
        if not pending or flag.pending or flag.pending_names:
            yield flag, panel, commands


def _cells(flag: Flag, panel: Panel, commands: list[str]) -> list[str]:
    shown = f"{len(commands)} commands" if len(commands) > 3 else " ".join(commands)
    names = f" Not available yet: {', '.join(flag.pending_names)}." if flag.pending_names else ""
    star = "*" if flag.pending else ""
    return [f"--{flag.name}{star}", shown_default(flag.default), panel.title, shown, f"{flag.description}{names}"]
