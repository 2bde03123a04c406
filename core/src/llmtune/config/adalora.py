"""Flags of the tuner `adalora` (arXiv:2303.10512)."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class AdaloraSection(Section):
    """AdaLoRA"""

    adalora_target_r: int = pending(8, ge=1, description="Average rank at the end.")
    adalora_init_r: int = pending(12, ge=1, description="Rank of every layer at the start.")
    adalora_tinit: int = pending(0, ge=0, description="Steps before ranks are reduced.")
    adalora_tfinal: int = pending(0, ge=0, description="Steps at the end in which ranks stay.")
    adalora_deltaT: int = pending(1, ge=1, description="Steps between two reductions.")  # noqa: N815 - peft's name
    adalora_beta1: float = pending(0.85, gt=0, lt=1, description="Smoothing of the sensitivity.")
    adalora_beta2: float = pending(0.85, gt=0, lt=1, description="Smoothing of its uncertainty.")
    adalora_orth_reg_weight: float = pending(
        0.5, ge=0, description="Weight of the penalty on P and Q that are not orthogonal."
    )
