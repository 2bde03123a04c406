"""Start a training command in several processes, as torchrun does (NPROC_PER_NODE, NNODES ...)."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from llmtune.config import environment


def launch(arguments: Sequence[str]) -> int | None:
    """Run `llmtune ARGUMENTS` in the processes that the environment asks for and return the exit code.

    None when it asks for none, or when this process is one of them already. The code is that of the
    first process that failed.
    """
    asked = environment.processes()
    if asked is None:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    port = asked.port or (_free_port() if asked.nodes == 1 else 29500)
    words = [
        *("--nproc_per_node", str(asked.per_node), "--nnodes", str(asked.nodes), "--node_rank", str(asked.node_rank)),
        *("--master_addr", asked.address, "--master_port", str(port), "-m", "llmtune", *arguments),
    ]
    config, command, command_arguments = config_from_args(parse_args(words))  # type: ignore[no-untyped-call]
    try:
        elastic_launch(config=config, entrypoint=command)(*command_arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
        print(f"error: process {rank} of {asked.per_node * asked.nodes} ended first, with code {code}", file=sys.stderr)
        return code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
