"""Flags about evaluation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section, pending


class EvaluationSection(Section):
    """Evaluation"""

    evaluation_strategy: Literal["steps", "epoch", "no"] = Field(
        "steps", description="When the validation loss is measured."
    )
    eval_steps: int = Field(50, ge=1, description="Steps between evaluations.")
    eval_batch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass. None: 1 with --predict_with_generate, else --batch_size."
    )
    predict_with_generate: bool = pending(False, description="Generate answers and measure ROUGE and BLEU.")
    acc_strategy: Literal["token", "sentence"] = pending("token", description="What counts as one right answer.")
    acc_steps: int = pending(1, ge=1, description="Steps between measurements of the accuracy.")
    metric_warmup_step: float = pending(0, ge=0, description="Steps at the start that metrics leave out.")
