"""Commands in processes that have imported everything already: they start in a fraction of a second."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess as Forked
from pathlib import Path

from command_line import free_port

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["llmtune.cli.main", "llmtune.pipelines.sft", "transformers.trainer", "peft"])


def forked(words: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
    """Start `llmtune WORDS`, whose output is appended to `log`."""
    process = _server.Process(target=_run, args=(words, environment, log))
    process.start()
    return process


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the variables of torchrun for one of several processes of this machine; of one: no place at all."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    variables = {name: str(value) for name, value in numbers.items()} if ranks > 1 else {}
    return {**variables, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}


def forked_ranks(words: Sequence[str], ranks: int, log: Path) -> list[Forked]:
    """Start `llmtune WORDS` as the processes of one run."""
    port = free_port()
    return [forked(words, _place(rank, ranks, port), log) for rank in range(ranks)]


def _run(words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as in a process that nobody has forked
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from llmtune.cli.main import main

    sys.exit(main(list(words)))
