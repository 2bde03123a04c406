"""Which function does the main job of each command."""

from __future__ import annotations

import importlib
from typing import Any

from llmtune.config.commands import CommandConfig
from llmtune.errors import Problems, UsageError
from llmtune.plugins.catalogue import Catalogue

PIPELINES = {
    "sft": "llmtune.pipelines.sft:sft",
    "pt": "llmtune.pipelines.pt:pt",
    "infer": "llmtune.pipelines.infer:infer",
    "merge-lora": "llmtune.pipelines.merge:merge_lora",
    "export": "llmtune.pipelines.export:export",
    "inspect": "llmtune.pipelines.inspect:inspect",
}
"""Command -> "module:function"; a command with a configuration that is not here is not available yet."""

_TRAIN = ("sft", "pt", "rlhf")


def run(command: str, config: CommandConfig, catalogue: Catalogue) -> Any:
    """Do the main job of `command` and return what its pipeline returns; None where a run file was printed."""
    if config.invocation.print_config:
        from llmtune.pipelines.print_config import run_file

        Problems(config.problems).raise_any()
        print(run_file(command, config, catalogue), end="")
        return None
    if command not in PIPELINES:
        Problems(config.problems).raise_any()
    check_available(command)
    module, _, function = PIPELINES[command].partition(":")
    return getattr(importlib.import_module(module), function)(config, catalogue)


def check_available(command: str) -> None:
    """Raise `UsageError` for a command that is still to come."""
    if command not in PIPELINES:
        raise UsageError(f"llmtune {command} is not available yet", fix="llmtune --help lists what is")


def trains(command: str, config: CommandConfig) -> bool:
    """Whether NPROC_PER_NODE and NNODES start this call in several processes."""
    rehearses = config.invocation.print_config or config.get("dry_run")
    return command in _TRAIN and command in PIPELINES and not rehearses
