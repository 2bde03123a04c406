"""Uploads the checkpoints of a run while it trains, in the background."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmtune.errors import Interrupted, LlmtuneError, UploadFailed
from llmtune.train import checkpoint
from llmtune.train.hub_calls import HubCalls
from llmtune.train.published_files import lay_out

Strategy = Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"]
_RESUMABLE = ("checkpoint", "all_checkpoints")
LAST = "last-checkpoint"
"""Folder of the repository with the newest checkpoint, as transformers names it."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A repository that may be written to."""

    calls: HubCalls
    repo: str
    private: bool

    def upload(self, folder: Path, message: str) -> str:
        """Return the address of the repository."""
        return self.calls.upload(folder, self.repo, private=self.private, message=message)

    def later(self, folder: Path) -> str:
        """Return the command that uploads a checkpoint."""
        private = " --hub_private_repo true" if self.private else ""
        hub = self.calls.hub.rpartition("::")[2]
        return f"llmtune export --ckpt_dir {folder} --push_to_hub true --hub_model_id {self.repo} --hub {hub}{private}"


@dataclass(frozen=True)
class _Job:
    """A checkpoint, laid out for its upload."""

    source: Path
    folder: Path


class Publisher:
    """Is told about each complete checkpoint and uploads those that the strategy wants, one after the other.

    A checkpoint is laid out at once, so that it may be deleted meanwhile. Where a newer one comes before
    its turn, only `all_checkpoints` still uploads it. What fails is said, and tried again with the next checkpoint.
    """

    def __init__(
        self,
        destination: Destination,
        strategy: Strategy,
        folder: Path,
        *,
        card: Callable[[Path], str],
        base: str,
        say: Callable[[str], None],
    ) -> None:
        """`folder` is the run's; `card` returns the README.md for a checkpoint; `base` names the base model."""
        self.destination, self.strategy, self.folder = destination, strategy, folder
        self._card, self._base, self._say = card, base, say
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._thread: threading.Thread | None = None
        self._uploaded: list[Path] = []

    def checkpoint_saved(self, path: Path, is_best: bool) -> None:
        """Start the upload of a complete checkpoint, or let it wait for the one that is under way."""
        if self._wants(is_best):
            try:
                self._add(path)
            except Exception as error:  # such as a full disk: training goes on
                _warn(f"{path.name} was not prepared for its upload: {error}; tried again at the end")
        self._start()

    def finish(self, best: Path | None, last: Path | None) -> None:
        """Upload what is still missing; raise `UploadFailed`, naming the checkpoint and the command for later."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._say(f"waiting for the upload to {self.destination.repo}")
            thread.join()
        missing = self._missing(best, last)
        source = missing[0] if missing else None
        try:
            for source in missing:
                self._add(source)
            while (job := self._take()) is not None:
                source = job.source
                try:
                    self._upload(job)
                except KeyboardInterrupt:  # `close` says what is missing
                    self._give_back(job)
                    raise
        except (LlmtuneError, OSError) as error:
            assert source is not None
            raise self._failed(source, error) from None

    def _failed(self, source: Path, error: Exception) -> UploadFailed:
        with self._lock:
            others, self._waiting = len(self._waiting), []
        more = f" (and {others} more)" if others else ""
        what = "it with" if self.strategy not in _RESUMABLE else "what answering needs of it with"
        return UploadFailed(
            f"{source.name}{more} was not uploaded to {self.destination.repo}: {error}",
            fix=f"training is done and the checkpoint complete: {source}\n"
            f"  upload {what}: {self.destination.later(source)}",
        )

    def close(self) -> None:
        """Stop what is under way, say what was not uploaded, and remove what was laid out."""
        with self._lock:
            thread, waiting = self._thread, self._waiting
            self._waiting = []
        self.destination.calls.stop()
        if thread is not None:
            thread.join()
        if waiting or thread is not None:
            newest = checkpoint.newest(self.folder)
            later = f"; later: {self.destination.later(newest)}" if newest else ""
            _warn(f"the upload to {self.destination.repo} was stopped{later}")
        for path in self.folder.glob(f"{_prefix()}*"):
            shutil.rmtree(path, ignore_errors=True)

    # --- which ------------------------------------------------------------------------------------

    def _wants(self, is_best: bool) -> bool:
        return is_best if self.strategy == "push_best" else self.strategy != "end"

    def _missing(self, best: Path | None, last: Path | None) -> list[Path]:
        """Return the checkpoints that the strategy promises and that are neither uploaded nor waiting."""
        with self._lock:
            there = [*self._uploaded, *(job.source for job in self._waiting)]
        if self.strategy == "all_checkpoints":
            return [path for path in checkpoint.complete_checkpoints(self.folder) if path not in there]
        wanted = best if self.strategy in ("end", "push_best") else last
        return [wanted] if wanted is not None and there[-1:] != [wanted] else []

    # --- waiting ----------------------------------------------------------------------------------

    def _add(self, path: Path) -> None:
        job = _Job(path, self._lay_out(path))
        with self._lock:
            passed = [] if self.strategy == "all_checkpoints" else self._waiting
            self._waiting = [*(one for one in self._waiting if one not in passed), job]
        for one in passed:
            shutil.rmtree(one.folder, ignore_errors=True)

    def _take(self) -> _Job | None:
        with self._lock:
            return self._waiting.pop(0) if self._waiting else None

    def _give_back(self, job: _Job) -> None:
        """Let a job that failed be the next one again, unless a newer one has taken its place."""
        with self._lock:
            passed = self._waiting and self.strategy != "all_checkpoints"
            self._waiting = self._waiting if passed else [job, *self._waiting]
        if passed:
            shutil.rmtree(job.folder, ignore_errors=True)

    # --- uploading --------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._upload_waiting, name="upload", daemon=True)
                self._thread.start()

    def _upload_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                job = self._waiting.pop(0)
            try:
                self._upload(job)
            except Exception as error:  # whatever it is, training goes on
                self._give_back(job)
                with self._lock:
                    self._thread = None
                if isinstance(error, Interrupted):
                    return
                _warn(f"{job.source.name} was not uploaded: {error}\n  it is tried again with the next checkpoint")
                return

    def _upload(self, job: _Job) -> None:
        address = self.destination.upload(job.folder, f"step {checkpoint.step_of(job.source)}")
        with self._lock:
            self._uploaded.append(job.source)
        shutil.rmtree(job.folder, ignore_errors=True)
        self._say(f"uploaded {job.source.name} to {address}")

    def _lay_out(self, path: Path) -> Path:
        folder = self.folder / f"{_prefix()}{path.name}"
        shutil.rmtree(folder, ignore_errors=True)
        if self._is_newest(path):
            lay_out(path, folder, base=self._base)
            (folder / "README.md").write_text(self._card(path), encoding="utf-8")
        if self.strategy in _RESUMABLE:
            name = LAST if self.strategy == "checkpoint" else path.name
            lay_out(path, folder / name, base=self._base, resumable=True)
        return folder

    def _is_newest(self, path: Path) -> bool:
        """Whether it belongs to the top of the repository: not where a newer one has been laid out already."""
        with self._lock:
            others = [*self._uploaded, *(job.source for job in self._waiting)]
        newer = any(checkpoint.step_of(other) > checkpoint.step_of(path) for other in others)
        return self.strategy != "all_checkpoints" or not newer


def _prefix() -> str:
    return f"{checkpoint.STAGING}upload-"


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
