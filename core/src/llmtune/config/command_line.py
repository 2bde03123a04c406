"""Read the words of a command line: flags, and a run file in front of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llmtune.config.aliases import aliases
from llmtune.config.flags import Given, Words, check_names, short_options, split_flags
from llmtune.config.source import plugin_flags, section_flags
from llmtune.errors import UsageError, did_you_mean
from llmtune.paths import user_path
from llmtune.plugins.catalogue import Catalogue

_RUN_FILES = (".yaml", ".yml", ".json")
_YES = ("", "true", "1", "yes", "on", "t", "y")


def known_flags(command: str, catalogue: Catalogue) -> list[str]:
    """Return the flags of `command`, those of plugins and old names included."""
    known = [*section_flags(command), *(flag for flag, _ in plugin_flags(command, catalogue))]
    return [*known, *aliases(known)]


def read_words(command: str, arguments: Sequence[str], catalogue: Catalogue) -> Given:
    """Return flag -> words or typed value; the command line wins over the run file.

    Imports neither pydantic nor a plugin, so that a misspelt flag is answered at once.
    """
    words, flags = split_flags(arguments)
    known = known_flags(command, catalogue)
    if _says_yes(flags.get("ignore_args_error")):
        words, flags = _without_unknown(words, flags, known)
    short = short_options([*words, *(word for given in flags.values() for word in given)])
    if short:
        raise UsageError(f"unknown option {short[0]}", fix="llmtune's options have two dashes; --help lists them")
    check_names(flags, known, command)
    from_file = _run_file(command, words, known)
    values = {**from_file, **{flag: Words(given) for flag, given in flags.items()}}
    return Given(values, {flag: place for flag, place in from_file.places.items() if flag not in flags})


def _run_file(command: str, words: Sequence[str], known: Sequence[str]) -> Given:
    strange = [word for word in words if not word.endswith(_RUN_FILES)]
    if len(words) > 1 and not strange:
        raise UsageError(f"one run file only, found {' and '.join(words)}", fix="give the rest as options")
    if strange:
        raise UsageError(
            f"unexpected argument {strange[0]!r}",
            fix=f"options start with --; a run file ends in .yaml or .json (llmtune {command} --help)",
        )
    if not words:
        return Given()
    from llmtune.config.run_file import read_run_file

    path = user_path(words[0])
    values, lines = read_run_file(path)
    wrong = [flag for flag in values if flag not in known]
    if wrong:
        problem = "\n".join(f"{path}:{lines[flag]}: unknown option {flag}" for flag in wrong)
        hints = [hint for flag in wrong if (hint := did_you_mean(flag, known))]
        raise UsageError(problem, fix="\n  ".join(hints) or f"llmtune {command} --help lists the options")
    return Given(values, {flag: f"{path}:{line}: {flag}" for flag, line in lines.items()})


def _says_yes(words: list[str] | None) -> bool:
    return words is not None and "".join(words[:1]).lower() in _YES


def _without_unknown(
    words: list[str], flags: dict[str, list[str]], known: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Leave out what --ignore_args_error lets pass, with a line that says so."""
    files = [word for word in words if word.endswith(_RUN_FILES)][:1]
    kept = {flag: [word for word in given if word not in short_options(given)] for flag, given in flags.items()}
    ignored = [word for word in words if word not in files] + [f"--{flag}" for flag in flags if flag not in known]
    ignored += [word for given in flags.values() for word in short_options(given)]
    if ignored:
        print(f"warning: ignored {' '.join(ignored)} (--ignore_args_error)", file=sys.stderr)
    return files, {flag: given for flag, given in kept.items() if flag in known}
