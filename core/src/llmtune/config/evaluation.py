"""Flags about evaluation while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section


class EvaluationSection(Section):
    """Evaluation"""

    evaluation_strategy: Literal["steps", "epoch", "no"] = Field(
        "steps", description="When the validation loss is measured."
    )
    eval_steps: int = Field(50, ge=1, description="Steps between evaluations.")
    eval_batch_size: int | None = Field(
        None, ge=1, description="Rows per forward pass in evaluation. None: --batch_size."
    )
