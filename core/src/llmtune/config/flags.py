"""Split an argument list into flags and values, and check the flags' names.

Both work without pydantic or the classes of the sections: importing pydantic takes 0.3 s, and a
misspelt flag is answered before that. Values are validated later, by the sections themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmtune.errors import UsageError, did_you_mean
from llmtune.plugins.catalogue import known_elsewhere

_FLAG = re.compile(r"--[A-Za-z]")


class Words(list[str]):
    """The words that followed a flag on the command line."""


class Given(dict[str, Any]):
    """Flag -> what was given for it: `Words` from the command line, or a value of a run file or of Python.

    `places` says where a value stands ("run.yaml:3: lora_rank"), for messages.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None) -> None:
        super().__init__(values or {})
        self.places = dict(places or {})

    def place(self, flag: str) -> str:
        return self.places.get(flag, f"--{flag}")


def split_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return (words before the first flag, flag name -> its words).

    A flag takes every word up to the next flag: `--dataset a b`, `--packing`, `--lr=1e-4`, `--max_steps -1`.
    Repeating a flag adds words. `-` and `_` are the same in names.
    """
    words: list[str] = []
    flags: dict[str, list[str]] = {}
    current = words
    for argument in arguments:
        if _FLAG.match(argument):
            name, equals, value = argument[2:].partition("=")
            current = flags.setdefault(name.replace("-", "_"), [])
            if equals:
                current.append(value)
        else:
            current.append(argument)
    return words, flags


def short_options(arguments: Iterable[str]) -> list[str]:
    """Return the words that look like an option with one dash; llmtune has none of those."""
    return [word for word in arguments if re.fullmatch(r"-[A-Za-z]", word)]


def _not_installed(flag: str) -> str:
    """Say which package has `flag`, or return an empty string."""
    dist = known_elsewhere("flag", flag)
    return f"--{flag} comes with {dist}: pip install {dist}" if dist else ""


def check_names(given: Iterable[str], known: Iterable[str], command: str) -> None:
    """Raise `UsageError` with a suggestion for every name that `command` does not have."""
    names = set(known)
    wrong = [name for name in given if name not in names]
    if not wrong:
        return
    first = (
        f"unknown option --{wrong[0]}" if len(wrong) == 1 else "unknown options " + ", ".join(f"--{n}" for n in wrong)
    )
    hints = [hint for name in wrong if (hint := _not_installed(name) or did_you_mean(name, names, prefix="--"))]
    raise UsageError(first, fix="\n  ".join(hints) or f"llmtune {command} --help lists the options")
