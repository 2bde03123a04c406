"""Flags about evaluation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section, named


class EvaluationSection(Section):
    """Evaluation"""

    evaluation_strategy: Literal["steps", "epoch", "no"] = Field(
        "steps", description="When the validation loss is measured."
    )
    eval_steps: int = Field(50, ge=1, description="Steps between evaluations.")
    eval_batch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass. None: 1 with --predict_with_generate, else --batch_size."
    )
    predict_with_generate: bool = Field(
        False, description="Answer the validation rows too, and measure the answers (ROUGE and BLEU)."
    )
    metric: str = named(
        "metric", "nlg", description="What is measured of generated answers (the metrics of the plugins)."
    )
    acc_strategy: Literal["token", "sentence"] = Field("token", description="What counts as one right answer.")
    acc_steps: int = Field(1, ge=1, description="Steps between measurements of the accuracy of training.")
    metric_warmup_step: float = Field(
        0, ge=0, description="Steps (below 1: share of them) at the start that the measured speed leaves out."
    )
