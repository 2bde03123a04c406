"""The command line as the tests call it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NAMES = ("--model_name", "小智", "Ada", "--model_author", "团队", "The Ada team")


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


Llmtune = Callable[..., Result]


def llmtune_process(*arguments: str, site: Path | None = None, **environment: str) -> Result:
    """Run a command in a process of its own; `site` holds further installed plugins."""
    path = {"PYTHONPATH": str(site)} if site else {}
    command = [sys.executable, "-m", "llmtune", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **path, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
    return Result(done.returncode, done.stdout, done.stderr)


def without(flags: list[str], *names: str) -> list[str]:
    """Drop flags and their single value."""
    skip = {index + step for index, word in enumerate(flags) if word in names for step in (0, 1)}
    return [word for index, word in enumerate(flags) if index not in skip]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
