"""Forward and backward passes of one optimizer step, cut into as many micro-batches as memory asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from llmtune.api import MicroBatches, OutOfMemory, ranks
from llmtune_plugin_hf._collate import Collate, targets
from llmtune_plugin_hf._forward import Forward
from llmtune_plugin_hf._steps import Step

Penalty = Callable[[], "torch.Tensor | None"]
"""What a tuner adds to the loss of each step."""


class Engine(Protocol):
    """How gradients get from a loss into `.grad` of the parameters, averaged over ranks after the last pass."""

    @property
    def in_parts(self) -> bool:
        """Whether ranks wait for each other in every pass."""

    def without_sync(self, model: Any) -> contextlib.AbstractContextManager[None]:
        """Inside, gradients are kept for the passes that follow."""

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of one pass."""


@dataclass(frozen=True)
class Outcome:
    """What came of the passes of one step."""

    loss: torch.Tensor
    """This rank's part: its mean over ranks is the step's loss per target token."""
    right: torch.Tensor | None
    """(2,): predictions that are right, of how many, on this rank."""
    tokens: int
    """Of all ranks."""
    padding: float
    """Share of what this rank computed that is padding."""


class Passes:
    """Runs the passes of a step; the gradients are those of its loss per target token, over all ranks."""

    engine: Engine
    cut: MicroBatches | None = None
    """Both are known once the model is where it is trained."""

    def __init__(self, forward: Forward, collate: Collate) -> None:
        self.forward, self.collate = forward, collate

    def run(
        self, model: Any, step: Step, *, penalty: Penalty, measure: Literal["token", "sentence"] | None = None
    ) -> Outcome:
        """Raise `torch.OutOfMemoryError`, on every rank, when a rank's memory did not hold the step."""
        assert self.cut is not None
        parts = [[step.rows[place] for place in part] for part in self.cut.cut(step.lengths)]
        mine = [len(parts), sum(map(targets, step.rows)), sum(step.lengths)]
        everyone = ranks.gather(mine)
        count = max(one[0] for one in everyone)
        readers = everyone[:: self.forward.parallel.size]  # those that share a sequence have the same rows
        all_targets, tokens = (sum(one[at] for one in readers) for at in (1, 2))
        # Every rank makes equally many passes: one that shards the model waits for the others in each of them.
        batches = [self.collate(part) for part in (*parts, *[[]] * (count - len(parts)))]
        # Ranks' gradients are averaged: undo it, the sum over ranks is what the number of targets belongs to.
        scale = len(everyone) / max(all_targets, 1)
        losses, right = self._passes(model, batches, scale, penalty, measure)
        return Outcome(
            loss=torch.stack(losses).sum(),
            right=torch.stack(right).sum(dim=0) if right else None,
            tokens=tokens,
            padding=1 - sum(step.lengths) / sum(batch["labels"].numel() for batch in batches),
        )

    def _passes(
        self, model: Any, batches: Sequence[dict[str, Any]], scale: float, penalty: Penalty, measure: Any
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        losses: list[torch.Tensor] = []
        right: list[torch.Tensor] = []

        def forward(batch: dict[str, Any]) -> torch.Tensor:
            total, measured = self.forward.loss(model, batch, measure)
            right.extend([] if measured is None else [measured])
            losses.append((total * scale).detach())
            return total * scale

        with contextlib.ExitStack() as inside:
            ran_out = False
            try:
                with self.engine.without_sync(model):
                    for batch in batches[:-1]:
                        with self.forward.samples_of(batch):
                            self.engine.backward(forward(batch), last=False)
                inside.enter_context(self.forward.samples_of(batches[-1]))
                loss = forward(batches[-1])
                if (added := penalty()) is not None:
                    loss = loss + added
                    losses.append(added.detach())
            except torch.OutOfMemoryError as error:
                if self.engine.in_parts and ranks.count() > 1:
                    raise self._others_wait("a pass") from error
                ran_out = True
            # The last backward pass is the one that others wait in: nobody enters it when somebody cannot.
            if ranks.largest(int(ran_out)):
                raise torch.OutOfMemoryError
            self._last_backward(loss)
        return losses, right

    def _last_backward(self, loss: torch.Tensor) -> None:
        try:
            self.engine.backward(loss, last=True)
        except torch.OutOfMemoryError as error:
            if ranks.count() == 1:
                raise
            raise self._others_wait("the last backward pass") from error

    def _others_wait(self, where: str) -> OutOfMemory:
        return OutOfMemory(
            f"the memory of this GPU did not hold {where} of a step, in which the others wait",
            fix=f"set --micro_batch_tokens below what it was: {self.cut}",
        )
