"""The folder of one run: `output_dir/<model_type>/v<n>-<time>/`, with run.json as its record."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmtune.errors import OutputError, UsageError


def check_writable(output_dir: Path, flag: str = "--output_dir") -> None:
    """Raise `OutputError` unless files can be created in `output_dir`; leaves nothing behind."""
    existing = output_dir
    try:
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise OutputError(f"{flag} {output_dir}: {existing} is not a folder", fix=f"choose another {flag}")
        probe = existing / f".llmtune-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        allow = f", or: chmod u+w {existing}" if error.errno == errno.EACCES else ""
        raise OutputError(
            f"{flag} {output_dir} cannot be written: {error.strerror}", fix=f"choose another {flag}{allow}"
        ) from error


def create_run_folder(output_dir: Path, model_name: str, *, suffix: bool) -> Path:
    """Create and return a new run folder; with `suffix` False, `output_dir` itself."""
    try:
        if not suffix:
            output_dir.mkdir(parents=True, exist_ok=True)
            return output_dir.resolve()
        return _next_version(output_dir / model_name).resolve()
    except OSError as error:
        raise OutputError(
            f"cannot create a run folder in {output_dir}: {error.strerror}", fix="choose another --output_dir"
        ) from error


@contextmanager
def held(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep other runs out of `folder` for the block; raise `UsageError` where one is in it.

    The lock is the system's: it ends with its process, however that ends.
    """
    from filelock import FileLock, Timeout

    owner = folder / ".llmtune.owner"
    lock = FileLock(folder / ".llmtune.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"another run ({_read(owner) or 'of an unknown process'}) writes into {folder}",
            fix="wait for it, or choose another --output_dir; with --add_output_dir_suffix each run has its own",
        ) from error
    try:
        if gone := _read(owner):
            say(f"note: {folder} was held by a run ({gone}) that is gone; this one takes over")
        owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _next_version(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    while True:
        used = [int(match.group(1)) for path in parent.iterdir() if (match := re.match(r"v(\d+)-", path.name))]
        folder = parent / f"v{max(used, default=-1) + 1}-{stamp}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another run took the number first
            continue


def write_json(path: Path, content: Any) -> None:
    """Write `content` beside `path` and rename, so that a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", fix="free some space or choose another --output_dir"
        ) from error


class RunRecord:
    """run.json: plan, environment, versions and how the run ended."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path = folder / "run.json"
        self.content = {**content, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "state": "running"}
        write_json(self.path, self.content)

    def update(self, **values: Any) -> None:
        self.content.update(values)
        write_json(self.path, self.content)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record how the block ends: finished, interrupted or failed (with the error's first line)."""
        try:
            yield
        except BaseException as error:
            state = (
                "interrupted"
                if isinstance(error, KeyboardInterrupt) or getattr(error, "exit_code", 1) > 128
                else "failed"
            )
            self._end(state, error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        self._end("finished")

    def _end(self, state: str, **values: Any) -> None:
        try:
            self.update(state=state, ended=time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values)
        except OutputError:
            if state == "finished":
                raise
