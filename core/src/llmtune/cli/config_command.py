"""Commands with a configuration (sft, infer, inspect ...): flags and run file in, a pipeline called.

Typer is not used here: the flags come from pydantic sections and from plugins' options, lists take
several words (`--dataset a b`), and a misspelt flag must be answered before pydantic is imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.config.aliases import aliases
from llmtune.config.flags import Given, Words, check_names, short_options, split_flags
from llmtune.config.source import plugin_flags, section_flags
from llmtune.errors import Problems, UsageError

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation

_YES = ("", "true", "1", "yes", "on", "t", "y")


@dataclass(frozen=True)
class ConfigCommand:
    """A command that runs `pipeline` ("module:function") with its configuration; None: not available yet."""

    name: str
    pipeline: str | None = None
    trains: bool = False
    """Whether NPROC_PER_NODE and NNODES start it in several processes."""

    def __call__(self, arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
        if any(word in ("-h", "--help") for word in arguments):
            from llmtune.cli.help import print_help

            print_help(self.name, obj.catalogue)
            return 0
        given = self.given(arguments, obj)
        from llmtune.pipelines.configure import configure

        config, catalogue = configure(self.name, given, obj.catalogue)
        if config.invocation.print_config or self.pipeline is None:
            Problems(config.problems).raise_any()
        if config.invocation.print_config:
            from llmtune.pipelines.print_config import run_file

            print(run_file(self.name, config, catalogue), end="")
            return 0
        if self.pipeline is None:
            raise UsageError(f"llmtune {self.name} is not available yet", fix="llmtune --help lists what is")
        if self.trains and not config.get("dry_run"):
            from llmtune.cli.launch import launch

            code = launch([self.name, *arguments])
            if code is not None:
                return code
        module, _, function = self.pipeline.partition(":")
        getattr(importlib.import_module(module), function)(config, catalogue)
        return 0

    def given(self, arguments: Sequence[str], obj: Invocation) -> Given:
        """Return flag -> words or typed value; the command line wins over the run file.

        Imports neither pydantic nor a plugin, so that a misspelt flag is answered at once.
        """
        words, flags = split_flags(arguments)
        known = [*section_flags(self.name), *(flag for flag, _ in plugin_flags(self.name, obj.catalogue))]
        known += aliases(known)
        if _says_yes(flags.get("ignore_args_error")):
            words, flags = _without_unknown(words, flags, known)
        short = short_options([*words, *(word for given in flags.values() for word in given)])
        if short:
            raise UsageError(f"unknown option {short[0]}", fix="llmtune's options have two dashes; --help lists them")
        check_names(flags, known, self.name)
        from_file = self._run_file(words, known)
        values = {**from_file, **{flag: Words(given) for flag, given in flags.items()}}
        return Given(values, {flag: place for flag, place in from_file.places.items() if flag not in flags})

    def _run_file(self, words: Sequence[str], known: Sequence[str]) -> Given:
        if len(words) > 1 or (words and not words[0].endswith((".yaml", ".yml", ".json"))):
            raise UsageError(
                f"unexpected argument {words[0]!r}",
                fix=f"options start with --; a run file ends in .yaml or .json (llmtune {self.name} --help)",
            )
        if not words:
            return Given()
        from llmtune.config.run_file import read_run_file

        path = Path(words[0]).expanduser()
        values, lines = read_run_file(path)
        for flag in values:
            try:
                check_names([flag], known, self.name)
            except UsageError as error:
                raise UsageError(
                    f"{path}:{lines[flag]}: {error.problem.replace('--', '')}", fix=error.fix.replace("--", "")
                ) from None
        return Given(values, {flag: f"{path}:{line}: {flag}" for flag, line in lines.items()})


def _says_yes(words: list[str] | None) -> bool:
    return words is not None and "".join(words[:1]).lower() in _YES


def _without_unknown(
    words: list[str], flags: dict[str, list[str]], known: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Leave out what --ignore_args_error lets pass, with a line that says so."""
    files = [word for word in words if word.endswith((".yaml", ".yml", ".json"))][:1]
    kept = {flag: [word for word in given if word not in short_options(given)] for flag, given in flags.items()}
    ignored = [word for word in words if word not in files] + [f"--{flag}" for flag in flags if flag not in known]
    ignored += [word for given in flags.values() for word in short_options(given)]
    if ignored:
        print(f"warning: ignored {' '.join(ignored)} (--ignore_args_error)", file=sys.stderr)
    return files, {flag: given for flag, given in kept.items() if flag in known}
