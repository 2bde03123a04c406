"""`--help` of commands with a configuration: flags in panels, one per section and per plugin."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from llmtune.config.build import options_class
from llmtune.config.commands import COMMANDS
from llmtune.config.environment import terminal_width
from llmtune.config.field_names import OPTION_KINDS
from llmtune.config.section import Section
from llmtune.errors import PluginFailed
from llmtune.plugins.catalogue import Catalogue


def print_help(command: str, catalogue: Catalogue) -> None:
    """Print usage and every flag with its default, choices and one sentence."""
    console = Console(width=terminal_width() or None, highlight=False)
    help_text = catalogue.find("command", command).facts["help"]
    console.print(f"Usage: llmtune {command} [RUN.yaml] [OPTIONS]\n\n{help_text}.\n", markup=False)
    for title, section, note in panels(command, catalogue):
        console.print(
            _panel(title, section) if section else Panel(note, title=title, title_align="left", border_style="yellow")
        )


def panels(command: str, catalogue: Catalogue) -> Iterator[tuple[str, Section | None, str]]:
    """Yield (title, section with its defaults, note); a plugin whose options are broken has a note alone."""
    for field in COMMANDS[command].model_fields.values():
        section = field.get_default(call_default_factory=True)
        yield section.__doc__ or "", section, ""
    for kind in OPTION_KINDS[command]:
        for entry in catalogue.entries(kind):
            try:
                options = options_class(entry)
            except PluginFailed as error:
                yield f"{kind} {entry.name}", None, str(error)
                continue
            if options is not None:
                yield f"{options.__doc__} ({kind} {entry.name})", options(), ""


def _panel(title: str, section: Section) -> Panel:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(style="dim", max_width=24)
    table.add_column(ratio=1)
    for name, field in type(section).model_fields.items():
        table.add_row(
            f"--{name}", value_type(field.annotation), f"{field.description} \\[{_default(getattr(section, name))}]"
        )
    return Panel(table, title=title, title_align="left", border_style="dim")


def value_type(annotation: Any) -> str:
    """Return what a flag takes: its choices, or a type's name."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return value_type(inner[0])
    if origin is typing.Literal:
        return "|".join(map(str, inner))
    if origin is list:
        return "LIST"
    if inner:
        return "|".join(value_type(part) for part in inner if part is not type(None))
    names = {str: "TEXT", int: "NUMBER", float: "NUMBER", bool: "true|false", dict: "JSON"}
    return names.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _default(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "''" if value == "" else str(value)
