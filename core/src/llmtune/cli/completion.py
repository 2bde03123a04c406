"""Shell completion: `llmtune completion bash` prints a script, which asks `llmtune completion words` for words.

Typer brings completion for its own commands only; flags here come from the source of the sections, so
that a word is completed without importing pydantic or a plugin.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llmtune.config.source import OPTION_KINDS, Flag, panels

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation
    from llmtune.plugins.catalogue import Catalogue

_SCRIPTS = {
    "bash": """\
_llmtune_complete() {
    local IFS=$'\\n'
    COMPREPLY=($(llmtune completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _llmtune_complete llmtune
""",
    "zsh": """\
#compdef llmtune
_llmtune() {
    local -a found
    found=("${(@f)$(llmtune completion words -- "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _llmtune llmtune
""",
    "fish": """\
complete -c llmtune -a '(llmtune completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}
_WHERE = {
    "bash": "llmtune completion bash >> ~/.bashrc",
    "zsh": "llmtune completion zsh >> ~/.zshrc",
    "fish": "llmtune completion fish > ~/.config/fish/completions/llmtune.fish",
}


def app(arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
    """Print a script, or the words that may stand where the last argument is."""
    if arguments[:1] == ["words"]:
        words = list(arguments[2:] if arguments[1:2] == ["--"] else arguments[1:])
        print("\n".join(candidates(words, obj.catalogue)))
        return 0
    epilog = "install: " + "; ".join(_WHERE.values())
    parser = argparse.ArgumentParser(prog_name, description="Print a script that completes words.", epilog=epilog)
    parser.add_argument("shell", choices=sorted(_SCRIPTS))
    print(_SCRIPTS[parser.parse_args(arguments).shell], end="")
    return 0


def candidates(words: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Return what may stand for the last of `words`; an empty list leaves it to the shell (file names)."""
    *before, current = words or [""]
    if not before:
        return _starting(catalogue.names("command"), current)
    command = before[0]
    if command not in OPTION_KINDS:
        return []
    flags = {flag.name: flag for panel in panels(command, catalogue) for flag in panel.flags}
    if current.startswith("-"):
        return _starting([f"--{name}" for name in flags], current)
    named = next((word[2:].replace("-", "_") for word in reversed(before) if word.startswith("--")), "")
    return _starting(_values(flags[named], catalogue), current) if named in flags else []


def _values(flag: Flag, catalogue: Catalogue) -> list[str]:
    if flag.names:
        return catalogue.names(flag.names)
    return [str(choice) for choice in flag.choices] or (["true", "false"] if "true|false" in flag.takes else [])


def _starting(words: Iterable[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]
