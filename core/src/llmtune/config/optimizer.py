"""Flags about the optimizer and its learning rate."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llmtune.config.section import Section


class OptimizerSection(Section):
    """Optimizer"""

    optim: str = Field("adamw_torch", description="Optimizer, by its transformers name.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="First moment decay of Adam.")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="Second moment decay of Adam.")
    adam_epsilon: float = Field(1e-8, gt=0, description="Term added to Adam's denominator.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate. None: the tuner's (lora 1e-4, full 1e-5)."
    )
    min_lr: float | None = Field(None, ge=0, description="Learning rate at the end of the schedule.")
    lr_scheduler_type: str = Field("cosine", description="Schedule: cosine, linear, constant ...")
    lr_scheduler_kwargs: dict[str, Any] | None = Field(
        None, description="More settings of the schedule, e.g. '{\"num_cycles\": 2}'."
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Steps with a rising learning rate; overrides --warmup_ratio.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0: never.")
