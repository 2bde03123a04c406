"""Runs one peer of bench/train_cpu.py and measures it from outside: wall time and memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_SAMPLES_PER_SECOND = 4


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a process and its descendants used, and what it printed."""

    seconds: float
    """From its start to its end, imports and loading included."""
    processor_seconds: float
    memory: float
    """Highest sum over its processes, in GB (1e9), sampled; pages that several of them map count once (Pss)."""
    largest: float
    """Highest resident memory of one process, in GB, as the kernel counts it (ru_maxrss); mapped files included."""
    output: str


def run(command: list[str], environment: Mapping[str, str], log: Path) -> Ended:
    """Run a program to its end; what it prints goes to `log`. Exits with its last lines when it fails."""
    started = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        sampler = _Sampler(process.pid)
        _, status, usage = os.wait4(process.pid, 0)  # subprocess does not hand out the usage
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, memory = time.perf_counter() - started, sampler.end()
    output = log.read_text(errors="replace")
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}\n{output[-4000:]}")
    return Ended(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        memory=memory / 1e9,
        largest=usage.ru_maxrss * 1024 / 1e9,
        output=output,
    )


class _Sampler(threading.Thread):
    """Reads the memory of a process and its descendants a few times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.highest, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(1 / _SAMPLES_PER_SECOND):
            self.highest = max(self.highest, sum(map(_memory, _tree(self.pid))))

    def end(self) -> int:
        self.ended.set()
        self.join()
        return self.highest


def _tree(pid: int) -> Iterable[int]:
    """Yield a process and its descendants, as far as they still are there."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _memory(pid: int) -> int:
    """Return the memory of one process in bytes; 0 when it has ended."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process ended meanwhile
        return ""
