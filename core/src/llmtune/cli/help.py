"""`--help` of commands with a configuration: flags in panels, one per section and per plugin.

Everything comes from the source of the classes (`config/source.py`): pydantic alone would take half
of the time that a help text may take.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from llmtune.config.aliases import aliases
from llmtune.config.environment import no_color, terminal_width
from llmtune.config.source import Flag, Panel, panels
from llmtune.errors import did_you_mean
from llmtune.plugins.catalogue import Catalogue

_BOLD, _CYAN, _DIM, _END = "\033[1m", "\033[36m", "\033[2m", "\033[0m"


def print_help(command: str, catalogue: Catalogue, *, about: Sequence[str] = ()) -> None:
    """Print usage and every flag with what it takes, one sentence, and its default.

    `about` (`--help lora`) keeps the flags and panels with these words in their names.
    """
    color = sys.stdout.isatty() and not no_color()
    width = min(terminal_width() or shutil.get_terminal_size((100, 24)).columns, 160)
    print("\n".join(help_lines(command, catalogue, about=about, width=width, color=color)))


def help_lines(
    command: str, catalogue: Catalogue, *, about: Sequence[str] = (), width: int = 100, color: bool = False
) -> Iterator[str]:
    """Yield the lines of the help text."""
    found = list(panels(command, catalogue))
    yield f"Usage: llmtune {command} [RUN.yaml] [OPTIONS]"
    yield ""
    yield f"{catalogue.find('command', command).facts['help']}."
    yield f"llmtune {command} --help WORD shows the options about something."
    yield "Options marked * are understood, but not available yet."
    if about:
        found = [kept for panel in found if (kept := _about(panel, about)) is not None]
        yield from () if found else ("", f"no option is about {' '.join(about)}", _similar(about, command, catalogue))
    for panel in found:
        yield ""
        yield from _panel(panel, width, color)
    old = aliases([flag.name for panel in found for flag in panel.flags])
    if old:
        yield ""
        yield _styled("Old names", _BOLD, color)
        yield from (f"  --{name}  write --{new}" for name, new in sorted(old.items()))


def _similar(words: Sequence[str], command: str, catalogue: Catalogue) -> str:
    names = [flag.name for panel in panels(command, catalogue) for flag in panel.flags]
    return did_you_mean(words[0].lstrip("-").replace("-", "_"), names, prefix="--")


def _about(panel: Panel, words: Sequence[str]) -> Panel | None:
    wanted = [word.lstrip("-").replace("-", "_").lower() for word in words]
    if any(word in panel.title.lower() for word in wanted):
        return panel
    flags = tuple(flag for flag in panel.flags if any(word in flag.name.lower() for word in wanted))
    return replace(panel, flags=flags) if flags else None


def _panel(panel: Panel, width: int, color: bool) -> Iterator[str]:
    yield _styled(panel.title, _BOLD, color)
    if panel.note:
        yield from textwrap.wrap(panel.note, width, initial_indent="  ", subsequent_indent="  ")
    column = min(max((len(flag.name) for flag in panel.flags), default=0) + 4, 32)
    for flag in panel.flags:
        yield from _flag(flag, column, width, color)


def _flag(flag: Flag, column: int, width: int, color: bool) -> Iterator[str]:
    star = "*" if flag.pending else ""
    text = f"{flag.takes}  {flag.description} [{shown_default(flag.default)}]{star}"
    indent = " " * (column + 2)
    lines = textwrap.wrap(text, max(width - column - 2, 30), break_long_words=False, break_on_hyphens=False)
    head = f"  --{flag.name}"
    label = _styled(head, _CYAN, color) + " " * max(column + 2 - len(head), 2)
    first, *rest = lines
    if color:
        first = first.replace(flag.takes, _styled(flag.takes, _DIM, color), 1)
    yield f"{label}{first}"
    yield from (f"{indent}{line}" for line in rest)


def _styled(text: str, style: str, color: bool) -> str:
    return f"{style}{text}{_END}" if color else text


def shown_default(value: object) -> str:
    """Return a default as help and pages show it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "''" if value == "" else str(value)
