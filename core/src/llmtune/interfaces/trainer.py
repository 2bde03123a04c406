"""Trainer backends: the loop that fits a prepared model to encoded rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmtune.specs import Encoded

if TYPE_CHECKING:
    from llmtune.config.distributed import DistributedSection
    from llmtune.config.evaluation import EvaluationSection
    from llmtune.config.optimizer import OptimizerSection
    from llmtune.config.saving import SavingSection
    from llmtune.config.tracking import TrackingSection
    from llmtune.config.training import TrainingSection
    from llmtune.data.stream import Stream
    from llmtune.interfaces.tuner import Tuner


class Callback(Protocol):
    """Watches a training run. Called on rank 0 only."""

    def on_log(self, step: int, values: dict[str, float]) -> None:
        """Called with each set of logged values: loss, grad_norm, learning_rate, eval_loss ..."""


@dataclass(kw_only=True)
class TrainingJob:
    """Everything a backend needs to fit one model."""

    model: Any
    tokenizer: Any
    tuner: Tuner
    train_rows: Sequence[Encoded] | Stream
    """Samples by number, for the backend to shuffle; or a stream, whose order is fixed."""
    eval_rows: Sequence[Encoded]
    lengths: Sequence[int] | None = None
    """Tokens of each of `train_rows`; None where they are known only once it is encoded."""
    sources: Callable[[int], list[str]] | None = None
    """Number of one of `train_rows` -> where it came from ("data.jsonl:12"); None for a stream: its samples say it."""
    packed: bool = False
    """Whether samples of `train_rows` are packs (`Encoded.lengths`), whose parts must not see each other."""
    training: TrainingSection
    """This and the sections below are resolved: no field is None any more where a rule decides it."""
    optimizer: OptimizerSection
    evaluation: EvaluationSection
    saving: SavingSection
    tracking: TrackingSection
    distributed: DistributedSection
    folder: Path
    resume_from: Path | None = None
    callbacks: list[Callback] = field(default_factory=list)
    write_extras: Callable[[Path], None]
    """Adds core's own files (arguments, template, tokenizer) to a checkpoint being written."""
    checkpoint_saved: Callable[[Path, bool], None]
    """Called on rank 0 after a checkpoint is complete under its final name, with whether it is the best one so far."""
    generated_metrics: Callable[[Any, int], dict[str, float]] | None = None
    """Answers the validation rows and returns what was measured of the answers; None without --predict_with_generate.
    Called on every rank at each evaluation, with the model without a backend's wrappers and the step. The values are
    logged with the prefix `eval_`."""
    best_metric: tuple[str, bool] = ("eval_loss", False)
    """The logged value that tells which checkpoint is the best, and whether higher is better."""
    left_out: Callable[[str, str], None] | None = None
    """Called with the `problem` of each sample that has one; None where no sample can have one."""

    @property
    def rows_in_a_step(self) -> int:
        """Rows (or packs) that each process brings to an optimizer step."""
        return self.training.batch_size * (self.training.gradient_accumulation_steps or 1)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended."""

    steps: int
    best_checkpoint: Path | None
    last_checkpoint: Path | None
    metrics: dict[str, float] = field(default_factory=dict)
    stop_signal: int | None = None
    """The signal that made it stop before the end (2 for Ctrl-C), None when it ran to the end."""


class Trainer(ABC):
    """A training backend."""

    @abstractmethod
    def fit(self, job: TrainingJob) -> RunResult:
        """Train until done or interrupted.

        The loss is the sum over target tokens divided by their number in the whole optimizer step.
        Every checkpoint goes through `llmtune.train.checkpoint`, so that none is ever half written.
        """
