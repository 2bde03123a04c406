"""Split an argument list into flags and values, and check the flags' names.

Both work without pydantic or the classes of the sections: importing pydantic takes 0.3 s, and a
misspelt flag is answered before that. Values are validated later, by the sections themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from llmtune.errors import UsageError, did_you_mean

_FLAG = re.compile(r"--[A-Za-z]")


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
        elif re.fullmatch(r"-[A-Za-z]", argument):
            raise UsageError(f"unknown option {argument}", fix="llmtune's options have two dashes; --help lists them")
        else:
            current.append(argument)
    return words, flags


def check_names(given: Iterable[str], known: Iterable[str], command: str) -> None:
    """Raise `UsageError` with a suggestion for every name that `command` does not have."""
    names = set(known)
    wrong = [name for name in given if name not in names]
    if not wrong:
        return
    first = (
        f"unknown option --{wrong[0]}" if len(wrong) == 1 else "unknown options " + ", ".join(f"--{n}" for n in wrong)
    )
    hints = [hint for name in wrong if (hint := did_you_mean(name, names, prefix="--"))]
    raise UsageError(first, fix="\n  ".join(hints) or f"llmtune {command} --help lists the options")
