"""Flags of the tuner `adalora` (arXiv:2303.10512)."""

from __future__ import annotations

from pydantic import Field, model_validator

from llmtune.api import TargetLayers


class AdaloraOptions(TargetLayers):
    """AdaLoRA"""

    adalora_target_r: int = Field(8, ge=1, description="Average rank at the end.")
    adalora_init_r: int = Field(12, ge=1, description="Rank of every layer at the start.")
    adalora_tinit: int = Field(0, ge=0, description="Steps before ranks are reduced.")
    adalora_tfinal: int = Field(0, ge=0, description="Steps at the end in which ranks stay.")
    adalora_deltaT: int = Field(1, ge=1, description="Steps between two reductions.")  # noqa: N815 - peft's name
    adalora_beta1: float = Field(0.85, gt=0, lt=1, description="Smoothing of the sensitivity.")
    adalora_beta2: float = Field(0.85, gt=0, lt=1, description="Smoothing of its uncertainty.")
    adalora_orth_reg_weight: float = Field(
        0.5, ge=0, description="Weight of the penalty on P and Q that are not orthogonal."
    )
    lora_alpha: int = Field(32, ge=1, description="Scale of the update: alpha / rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the input of the update.")

    @model_validator(mode="after")
    def _ranks_fall(self) -> AdaloraOptions:
        if self.adalora_target_r > self.adalora_init_r:
            raise ValueError(
                f"--adalora_target_r {self.adalora_target_r} is more than --adalora_init_r {self.adalora_init_r}; "
                "ranks only fall"
            )
        return self
