"""Start a training command in several processes, as torchrun does (NPROC_PER_NODE, NNODES ...).

The processes get torchrun's variables. Not torchrun itself: it would kill a run 30 s after Ctrl-C, which is
less than saving a large model takes, and print its own traceback for every error of a user.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from llmtune.config import environment
from llmtune.errors import UsageError

_SECONDS_TO_END = 10
"""How long the others may take after one has failed: most fail by themselves, some hang in NCCL."""


def launch(arguments: Sequence[str]) -> int | None:
    """Run `llmtune ARGUMENTS` in the processes that the environment asks for and return the exit code.

    None when it asks for none, or when this process is one of them already. The code is that of the
    first process that failed.
    """
    asked = environment.processes()
    if asked is None:
        return None
    with tempfile.TemporaryDirectory(prefix="llmtune-") as folder, _forwarding() as workers:
        port = asked.port or (_free_port() if asked.nodes == 1 else 29500)
        if asked.node_rank == 0:
            _check_free(port)
        for local_rank in range(asked.per_node):
            rank = asked.rank(local_rank)
            workers.append(_start(rank, asked.variables(local_rank, port), Path(folder), arguments))
        _watch(workers)
        endings = [worker.ending() for worker in workers]
    failed = [ending for ending in endings if ending.code]
    if not failed:
        return 0
    first = min(failed, key=lambda ending: (ending.time, ending.rank))
    for line in explanation(first, endings, asked.world_size):
        print(line, file=sys.stderr)
    return first.code


# --- the launcher's side --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one process ended."""

    rank: int
    code: int
    time: float
    """When it failed. A process that loses its peers fails after the one that left."""
    text: str = ""
    """What it wrote to stderr last, or the traceback of an error that is none of llmtune's own."""
    shown: bool = False
    """Whether the user has seen `text` already."""


def explanation(first: Ending, endings: Sequence[Ending], world_size: int) -> list[str]:
    """Return the lines that say why `first` failed and that the user has not seen yet."""
    if first.shown:
        return []
    if not first.text.strip():
        return [f"error: process {first.rank} of {world_size} ended with exit code {first.code}{_signal(first.code)}"]
    seen = {line for ending in endings if ending.shown for line in ending.text.splitlines()}
    mark = f"[rank {first.rank}] " if first.rank else ""
    return [mark + line for line in first.text.splitlines() if line.strip() and line not in seen]


def _signal(code: int) -> str:
    with contextlib.suppress(ValueError):
        name = signal.Signals(code - 128).name
        return f" ({name}{': out of memory?' if name == 'SIGKILL' else ''})"
    return ""


@dataclass(kw_only=True)
class _Worker:
    rank: int
    process: subprocess.Popen[bytes]
    report: Path
    log: Path
    ended: float = 0.0

    def running(self) -> bool:
        """Whether it still runs; notes the time when it does not."""
        if self.process.poll() is None:
            return True
        self.ended = self.ended or time.time()
        return False

    def ending(self) -> Ending:
        code = self.process.returncode
        base: dict[str, Any] = {"rank": self.rank, "code": code if code >= 0 else 128 - code}
        try:
            return Ending(**base, **json.loads(self.report.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # killed
            return Ending(**base, time=self.ended, text=self.log.read_text(encoding="utf-8", errors="replace"))


def _start(rank: int, variables: dict[str, str], folder: Path, arguments: Sequence[str]) -> _Worker:
    """Start one process, in a session of its own: Ctrl-C reaches it once, through the launcher.

    Rank 0 writes to the terminal. What C libraries of the others write goes into a file.
    """
    report, log = folder / f"{rank}.json", folder / f"{rank}.log"
    log.touch()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmtune.cli.launch", str(report), *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if rank else None,
            stderr=file if rank else None,
            start_new_session=True,
        )
    return _Worker(rank=rank, process=process, report=report, log=log)


@contextlib.contextmanager
def _forwarding() -> Iterator[list[_Worker]]:
    """Yield the list of processes that Ctrl-C and SIGTERM are passed on to; the third time kills them."""
    workers: list[_Worker] = []
    received = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        _send(workers, number if received < 3 else signal.SIGKILL)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield workers
    finally:
        _send(workers, signal.SIGKILL)  # none is left, unless the launcher itself failed
        for which, handler in previous.items():
            signal.signal(which, handler)


def _send(workers: Sequence[_Worker], number: int) -> None:
    for worker in workers:
        if worker.running():
            worker.process.send_signal(number)


def _watch(workers: Sequence[_Worker]) -> None:
    """Return when all have ended; one that failed takes the others with it."""
    while running := [worker for worker in workers if worker.running()]:
        failed = [worker.ended for worker in workers if worker.process.returncode]
        if failed and time.time() - min(failed) > _SECONDS_TO_END:
            _send(running, signal.SIGKILL)
        time.sleep(0.05)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does: a run that just ended is no reason
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UsageError(
                f"MASTER_PORT={port}: {error.strerror}; processes connect through this port",
                fix="choose another MASTER_PORT; without it one machine finds a free port itself",
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the side of each process ---------------------------------------------------------------------


class _Kept:
    """A stream that remembers what was written last."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.last: deque[str] = deque(maxlen=200)

    def write(self, text: str) -> int:
        self.last.append(text)
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def work(report: Path, arguments: Sequence[str]) -> int:
    """Run `llmtune ARGUMENTS` as one process of a launch; write the `time`, `text`, `shown` of its `Ending`."""
    from llmtune.cli.main import main

    threading.Thread(target=_stop_without_launcher, args=(os.getppid(),), daemon=True).start()
    kept = _Kept(sys.stderr)
    with contextlib.redirect_stderr(kept):
        try:
            code, text = main(arguments), ""
        except Exception:
            code, text = 1, traceback.format_exc()
    ended = {"time": time.time(), "text": text or "".join(kept.last), "shown": not text and environment.world()[0] == 0}
    report.write_text(json.dumps(ended), encoding="utf-8")
    return code


def _stop_without_launcher(launcher: int) -> None:
    """Stop as for SIGTERM when the launcher was killed: nobody else would end this process."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # as in llmtune/__main__.py
    sys.exit(work(Path(sys.argv[1]), sys.argv[2:]))
