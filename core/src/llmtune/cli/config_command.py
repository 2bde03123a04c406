"""Commands with a configuration (sft, infer, inspect): flags and run file in, a pipeline called.

Typer is not used here: the flags come from pydantic sections and from plugins' options, lists take
several words (`--dataset a b`), and a misspelt flag must be answered before pydantic is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.config.field_names import plugin_flags, section_flags
from llmtune.config.flags import check_names, split_flags
from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation


@dataclass(frozen=True)
class ConfigCommand:
    """A command that runs `pipeline` ("module:function") with its configuration."""

    name: str
    pipeline: str

    def __call__(self, arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
        if any(word in ("-h", "--help") for word in arguments):
            from llmtune.cli.help import print_help

            print_help(self.name, obj.catalogue)
            return 0
        values = self._values(arguments, obj)
        from llmtune.config.build import build_config
        from llmtune.config.commands import COMMANDS

        config: Any = build_config(COMMANDS[self.name], self._core(values))
        obj = self._with_local(obj, config)
        module, _, function = self.pipeline.partition(":")
        getattr(importlib.import_module(module), function)(config, obj.catalogue, values)
        return 0

    def _values(self, arguments: Sequence[str], obj: Invocation) -> dict[str, Any]:
        """Return flag -> words or typed value; the command line wins over the run file."""
        words, flags = split_flags(arguments)
        known = [*section_flags(self.name), *(flag for flag, _ in plugin_flags(self.name, obj.catalogue))]
        check_names(flags, known, self.name)
        values = self._run_file(words, known)
        from llmtune.config.build import Words

        return {**values, **{flag: Words(given) for flag, given in flags.items()}}

    def _run_file(self, words: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
        if len(words) > 1 or (words and not words[0].endswith((".yaml", ".yml", ".json"))):
            raise UsageError(
                f"unexpected argument {words[0]!r}",
                fix=f"options start with --; a run file ends in .yaml or .json (llmtune {self.name} --help)",
            )
        if not words:
            return {}
        from llmtune.config.run_file import read_run_file

        path = Path(words[0])
        values, lines = read_run_file(path)
        for flag in values:
            try:
                check_names([flag], known, self.name)
            except UsageError as error:
                raise UsageError(
                    f"{path}:{lines[flag]}: {error.problem.replace('--', '')}", fix=error.fix.replace("--", "")
                ) from None
        return values

    def _core(self, values: Mapping[str, Any]) -> dict[str, Any]:
        mine = set(section_flags(self.name))
        return {flag: value for flag, value in values.items() if flag in mine}

    @staticmethod
    def _with_local(obj: Invocation, config: Any) -> Invocation:
        """Add the local plugins that a run file names; those on the command line are there already."""
        from llmtune.cli.invocation import Invocation
        from llmtune.plugins.local import add_local_plugins

        present = {plugin.version for plugin in obj.catalogue.plugins if plugin.local is not None}
        paths = [
            path
            for path in config.plugins.custom_register_path
            if str(Path(path).expanduser().resolve()) not in present
        ]
        return Invocation(add_local_plugins(obj.catalogue, paths), obj.command) if paths else obj
