"""The commands as functions, under SWIFT's names: `sft_main(SftArguments(...))`.

Each takes the arguments of its command, a list of words as on the command line, or None for the words
that the script was started with. What goes wrong is raised as `LlmtuneError`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmtune.config import environment
from llmtune.errors import UsageError
from llmtune.pipelines.run import check_available, run, trains
from llmtune.plugins.local import with_session
from llmtune.python.arguments import (
    AppUIArguments,
    Arguments,
    DeployArguments,
    EvalArguments,
    ExportArguments,
    InferArguments,
    MergeLoraArguments,
    PtArguments,
    RLHFArguments,
    SftArguments,
    WebuiArguments,
)

Call = Arguments | Sequence[str] | None


def sft_main(args: Call = None) -> str | None:
    """Fine-tune and return the best checkpoint; None after a dry run, or when none was written."""
    return _best(_run(SftArguments, args))


def pt_main(args: Call = None) -> str | None:
    """Pre-train and return the best checkpoint."""
    return _best(_run(PtArguments, args))


def rlhf_main(args: Call = None) -> str | None:
    """Learn from preferences and return the best checkpoint."""
    return _best(_run(RLHFArguments, args))


def infer_main(args: Call = None) -> str | None:
    """Answer a dataset and return the file with the answers, or chat in the terminal and return None."""
    return _path(_run(InferArguments, args))


def merge_lora_main(args: Call = None) -> str | None:
    """Merge an adapter into its base model and return the folder of the whole model."""
    return _path(_run(MergeLoraArguments, args))


def export_main(args: Call = None) -> str | None:
    """Write a model in another form and return its folder."""
    return _path(_run(ExportArguments, args))


def eval_main(args: Call = None) -> Any:
    """Run benchmarks."""
    return _run(EvalArguments, args)


def deploy_main(args: Call = None) -> Any:
    """Serve a model behind an OpenAI-compatible API."""
    return _run(DeployArguments, args)


def app_ui_main(args: Call = None) -> Any:
    """Chat in a browser."""
    return _run(AppUIArguments, args)


def web_ui_main(args: Call = None) -> Any:
    """Train and serve from a browser."""
    return _run(WebuiArguments, args)


def _run(kind: type[Arguments], args: Call) -> Any:
    check_available(kind.command)
    arguments = _arguments(kind, args)
    if trains(kind.command, arguments.config):
        _check_processes()
    return run(kind.command, arguments.config, with_session(arguments.catalogue))


def _arguments(kind: type[Arguments], args: Call) -> Arguments:
    """Return the arguments of the command; those of another one are read again as its own."""
    if isinstance(args, kind):
        return args
    if isinstance(args, Arguments):
        return kind(**args.given)
    return kind.from_words(sys.argv[1:] if args is None else args)


def _check_processes() -> None:
    """A script is one process, or one of those that torchrun started; it cannot become several by itself."""
    asked = environment.processes()
    if asked is not None:
        raise UsageError(
            f"NPROC_PER_NODE or NNODES asks for {asked.per_node * asked.nodes} processes, and this script is one",
            fix=f"torchrun --nproc_per_node {asked.per_node} SCRIPT.py, or unset the variables",
        )


def _best(result: Any) -> str | None:
    return _path(None if result is None else result.best_checkpoint)


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
