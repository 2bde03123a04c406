"""Losses and gradients that are no numbers: whose fault it is, said before the model is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from llmtune.api import Encoded, TrainingDiverged, TrainingJob, checkpoint
from llmtune_plugin_hf._passes import Passes
from llmtune_plugin_hf._steps import Step

_SHOWN = 5


def diverged(job: TrainingJob, passes: Passes, model: Any, step: Step, number: int, what: str) -> TrainingDiverged:
    """Return the error that names the rows whose own loss is no finite number; all of the step's, where none is."""
    guilty = [place for place, row in enumerate(step.rows) if not _is_finite(passes, model, row)]
    named = ", ".join(_sources(job, step, guilty or range(len(step.rows))))
    whose = "rows" if guilty else "no row alone does it; the step's rows are"
    problem = f"the {what} of step {number} is not a finite number: {whose} {named}"
    return TrainingDiverged(problem, fix="\n  ".join(_ways_out(job, model)))


def _ways_out(job: TrainingJob, model: Any) -> Iterator[str]:
    in_fp16 = any(one.dtype == torch.float16 for one in model.parameters())
    other = ", or train with --dtype bf16 instead of fp16" if in_fp16 else ""
    yield f"lower --learning_rate ({job.optimizer.learning_rate:g}), look at these rows (llmtune inspect){other}"
    if (last := checkpoint.newest(job.folder)) is not None:
        yield f"the last checkpoint is from before: {last}"


@torch.no_grad()
def _is_finite(passes: Passes, model: Any, row: Encoded) -> bool:
    batch = passes.collate([row])
    with passes.forward.samples_of(batch):
        loss, _ = passes.forward.loss(model, batch)
    return passes.forward.parallel.all(bool(torch.isfinite(loss)), loss.device)


def _sources(job: TrainingJob, step: Step, places: Iterable[int]) -> Sequence[str]:
    """Return where rows came from ("data.jsonl:12"), the first few and how many more."""
    found: list[str] = []
    for place in places:
        row = step.rows[place]
        known = job.sources(step.numbers[place]) if job.sources and step.numbers else row.get("sources")
        found += known or ["of unknown source"]
    return found if len(found) <= _SHOWN else [*found[:_SHOWN], f"and {len(found) - _SHOWN} more"]
