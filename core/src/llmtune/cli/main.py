"""The front door: find the command in the catalogue, import it alone, run it, show errors plainly.

Nothing heavy is imported here. Typer is imported by the small commands that use it (0.15 s), pydantic
by commands with a configuration (0.3 s), torch by pipelines.
"""

from __future__ import annotations

import sys

from llmtune import __version__
from llmtune.errors import LlmtuneError, PluginFailed, UsageError, did_you_mean

TYPE_CHECKING = False  # read by type checkers; importing typing would be a tenth of `llmtune --version`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_OVERVIEW = """\
Usage: llmtune COMMAND [OPTIONS]

Fine-tune, serve, evaluate and export language models.

Commands:
{commands}

Options:
  --version              print the version
  -h, --help             print this; after a command, its options
  -p no:NAME             switch one plugin off for this call (repeatable)
  --custom_register_path FILE
                         a Python file that registers models, datasets, templates, tuners, commands
"""


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        return _run(list(arguments))
    except LlmtuneError as error:
        _show(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except SystemExit as error:  # argparse and typer end this way
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:  # the reader of our output (`| head`) left
        sys.stderr.close()
        return 0


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"llmtune {__version__}")
        return 0
    arguments, switched_off = _take_switches(arguments)
    leading, arguments = _take_leading(arguments)
    catalogue = _catalogue(switched_off, [*leading, *_split_local(arguments)[0]])
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help", *arguments[2:]]  # `llmtune help sft`, as git has it
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_OVERVIEW.format(commands=_command_lines(catalogue)), end="")
        return 0
    name, *rest = arguments
    if name in _LOCAL:
        raise UsageError(f"{name} takes a file", fix=f"llmtune {name} my.py COMMAND ...")
    if name.startswith("-"):
        raise UsageError(f"unknown option {name}", fix="llmtune --help lists the commands")
    command = _load(_find(catalogue, name))
    from llmtune.cli.invocation import Invocation

    rest = _with_local(rest, leading) if getattr(command, "records_local_files", False) else _split_local(rest)[1]
    code = command(rest, prog_name=f"llmtune {name}", obj=Invocation(catalogue, name))
    return code if isinstance(code, int) else 0


def _take_switches(arguments: list[str]) -> tuple[list[str], frozenset[str]]:
    """Remove each `-p no:NAME`."""
    kept, switched_off = [], set()
    words = iter(arguments)
    for word in words:
        if word == "-p":
            value = next(words, "")
            if not value.startswith("no:"):
                raise UsageError(f"-p takes no:NAME, found {value!r}", fix="llmtune plugins lists the names")
            switched_off.add(value.removeprefix("no:"))
        else:
            kept.append(word)
    return kept, frozenset(switched_off)


_LOCAL = ("--custom_register_path", "--custom-register-path")


def _take_leading(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split off each --custom_register_path FILE that stands before the command."""
    files = []
    while len(arguments) > 1 and arguments[0] in _LOCAL:
        files.append(arguments[1])
        arguments = arguments[2:]
    return files, arguments


def _split_local(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return (files of --custom_register_path, the other arguments)."""
    files: list[str] = []
    others: list[str] = []
    current = others
    for word in arguments:
        if word in _LOCAL:
            current = files
        elif word.startswith(tuple(f"{flag}=" for flag in _LOCAL)):
            files.append(word.partition("=")[2])
        else:
            current = others if word.startswith("--") else current
            current.append(word)
    return files, others


def _with_local(arguments: list[str], leading: list[str]) -> list[str]:
    """Commands with a configuration record the files among their own options."""
    return [*arguments, _LOCAL[0], *leading] if leading else arguments


def _catalogue(switched_off: frozenset[str], local_paths: list[str]) -> Any:
    from llmtune.config import environment
    from llmtune.plugins.catalogue import discover

    catalogue = discover(only=environment.only_plugins(), disabled=environment.disabled_plugins() | switched_off)
    for name in switched_off:
        catalogue.plugin(name)  # a misspelt name is an error, not a plugin that stays on
    if local_paths:
        from llmtune.plugins.local import add_local_plugins

        catalogue = add_local_plugins(catalogue, local_paths)
    return catalogue


def _command_lines(catalogue: Any) -> str:
    rows = [(entry.name, entry.facts["help"], entry.plugin) for entry in catalogue.entries("command")]
    order = {name: number for number, name in enumerate(catalogue.plugins[0].manifest.tables["command"])}
    rows.sort(key=lambda row: (order.get(row[0], len(order)), row[0]))
    return "\n".join(f"  {name:<22} {text}{_origin(plugin)}" for name, text, plugin in rows)


def _origin(plugin: Any) -> str:
    return "" if plugin.dist == "llmtune" else f" ({plugin.dist})"


def _find(catalogue: Any, name: str) -> Any:
    from llmtune.errors import UnknownName

    try:
        return catalogue.find("command", name)
    except UnknownName as error:
        suggestion = did_you_mean(name, catalogue.names("command"), prefix="llmtune ")
        fix = error.fix if "pip install" in error.fix else suggestion or "llmtune --help lists the commands"
        raise UnknownName(
            f"unknown command {name!r}" if "pip install" not in error.fix else error.problem, fix=fix
        ) from None


def _load(entry: Any) -> Callable[..., Any]:
    """Import the module of a command; local plugins hand over the callable itself."""
    import importlib

    target = entry.facts["run"]
    if callable(target):
        return _plain(target)
    module, _, attribute = target.partition(":")
    try:
        return _plain(getattr(importlib.import_module(module), attribute))
    except LlmtuneError:
        raise
    except Exception as error:
        raise PluginFailed(
            f"command {entry.name!r} of plugin {entry.plugin} failed to import: {type(error).__name__}: {error}",
            fix=f"llmtune plugins doctor {entry.plugin.name}",
        ) from error


def _plain(target: Callable[..., Any]) -> Callable[..., Any]:
    """Core's commands and typer apps take `prog_name` and `obj`; a plain function may take the arguments alone."""
    code = getattr(target, "__code__", None)
    if code is None or "obj" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        return target
    return lambda arguments, **_: target(arguments)


def _show(error: LlmtuneError) -> None:
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
    from llmtune.config import environment

    if environment.plugin_trace():
        import traceback

        traceback.print_exception(error)
