"""Trackers of a run (tensorboard, wandb ...): which ones, and that a resumed run goes on where it was recorded."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations

from llmtune.api import TrainingJob, UsageError

_FILE = "trackers.json"


def trackers(job: TrainingJob) -> list[str]:
    """Return the trackers to report to, without tensorboard, whose folder llmtune chooses itself."""
    wanted = job.tracking.report_to
    names = get_available_reporting_integrations() if "all" in wanted else wanted
    return [name for name in names if name not in ("none", "tensorboard")]


def tensorboard(job: TrainingJob) -> TensorBoardCallback | None:
    """Return the callback that writes to `--logging_dir`, or None when it is not wanted."""
    if not {"tensorboard", "all"} & set(job.tracking.report_to):
        return None
    return _TensorBoard(Path(os.path.expanduser(job.tracking.logging_dir or job.folder / "runs")))


class _TensorBoard(TensorBoardCallback):
    """Takes back, in a resumed run, what was written after the checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        first = state.global_step + 1
        self.tb_writer = SummaryWriter(str(self.folder), purge_step=first if first > 1 else None)
        super().on_train_begin(args, state, control, **kwargs)


@contextlib.contextmanager
def same_run(job: TrainingJob) -> Iterator[None]:
    """Inside, wandb records a resumed run where its first part is; an id of the user's environment wins."""
    if "wandb" not in trackers(job):
        yield
        return
    import wandb

    path = job.folder / _FILE
    known = json.loads(path.read_text(encoding="utf-8")) if job.resume_from and path.is_file() else {}
    number = os.environ.get("WANDB_RUN_ID") or known.get("wandb") or uuid.uuid4().hex[:8]
    path.write_text(json.dumps({"wandb": number}), encoding="utf-8")
    project = os.environ.get("WANDB_PROJECT", "huggingface")  # where transformers puts it too
    try:
        run = wandb.init(project=project, name=job.folder.name, id=number, resume="allow")
    except wandb.Error as error:
        raise UsageError(f"--report_to wandb: {error}", fix="wandb login, or set WANDB_MODE=offline") from error
    with run:
        yield
