"""Flags of GaLore (arXiv:2403.03507) and Q-GaLore (arXiv:2407.08296)."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, pending


class GaloreSection(Section):
    """GaLore"""

    use_galore: bool = pending(False, description="Project gradients to a low rank, with --sft_type full.")
    galore_target_modules: list[str] | None = pending(
        None, description="Layers whose gradients are projected. None: attention and MLP."
    )
    galore_rank: int = pending(128, ge=1, description="Rank of the projection.")
    galore_update_proj_gap: int = pending(50, ge=1, description="Steps between new projections.")
    galore_scale: float = pending(1.0, gt=0, description="Factor on the projected update.")
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = pending(
        "std", description="Side on which gradients are projected."
    )
    galore_optim_per_parameter: bool = pending(
        False, description="Give each parameter its own optimizer, so that gradients are freed at once."
    )
    galore_with_embedding: bool = pending(False, description="Project the gradient of the embedding too.")
    galore_quantization: bool = pending(False, description="Use Q-GaLore.")
    galore_proj_quant: bool = pending(False, description="Keep the projection in few bits.")
    galore_proj_bits: int = pending(4, ge=1, description="Bits of the projection.")
    galore_proj_group_size: int = pending(256, ge=1, description="Values that share one scale in the projection.")
    galore_cos_threshold: float = pending(
        0.4, ge=-1, le=1, description="Similarity of two projections above which updates get rarer."
    )
    galore_gamma_proj: int = pending(2, ge=1, description="How much rarer they get each time.")
    galore_queue_size: int = pending(5, ge=1, description="Projections that the similarity is averaged over.")
