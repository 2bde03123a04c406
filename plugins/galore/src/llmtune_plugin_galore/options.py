"""Flags of GaLore (arXiv:2403.03507) and Q-GaLore (arXiv:2407.08296)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from llmtune.api import Section


class GaloreOptions(Section):
    """GaLore"""

    use_galore: bool = Field(False, description="Project gradients to a low rank, with --sft_type full.")
    galore_target_modules: list[str] | None = Field(
        None,
        min_length=1,
        description="Linear layers whose gradients are projected: parts of their names. None: attention and MLP.",
    )
    galore_rank: int = Field(128, ge=1, description="Rank of the projection.")
    galore_update_proj_gap: int = Field(50, ge=1, description="Steps between new projections.")
    galore_scale: float = Field(1.0, gt=0, description="Factor on the projected update.")
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = Field(
        "std", description="Side on which gradients are projected."
    )
    galore_optim_per_parameter: bool = Field(
        False, description="Give each parameter its own optimizer, so that gradients are freed at once."
    )
    galore_with_embedding: bool = Field(False, description="Project the gradient of the embedding too.")
    galore_quantization: bool = Field(
        False, description="Use Q-GaLore: projections get rarer where they stay similar, and may be kept in few bits."
    )
    galore_proj_quant: bool = Field(False, description="Keep the projection in few bits.")
    galore_proj_bits: Literal[1, 2, 4, 8] = Field(4, description="Bits of the projection.")
    galore_proj_group_size: int = Field(256, ge=1, description="Values that share one scale in the projection.")
    galore_cos_threshold: float = Field(
        0.4, ge=-1, le=1, description="Similarity of two projections above which updates get rarer."
    )
    galore_gamma_proj: int = Field(2, ge=1, description="How much rarer they get each time.")
    galore_queue_size: int = Field(5, ge=1, description="Projections that the similarity is averaged over.")

    @model_validator(mode="after")
    def _bits_belong_to_q_galore(self) -> GaloreOptions:
        if self.galore_proj_quant and not self.galore_quantization:
            raise ValueError("--galore_proj_quant is a part of Q-GaLore: add --galore_quantization true")
        return self
