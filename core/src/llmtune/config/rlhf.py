"""Flags about learning from preferences."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, named, pending


class RlhfSection(Section):
    """RLHF"""

    rlhf_type: Literal["dpo", "orpo", "simpo", "kto", "cpo"] = pending("dpo", description="Method of alignment.")
    ref_model_type: str | None = named(
        "model", None, description="Reference model. None: the trained model as it was; cpo, simpo and orpo need none."
    )
    ref_model_id_or_path: str | None = pending(None, description="Repository or folder of the reference model.")
    ref_model_free: bool = pending(False, description="Do without a reference model in dpo.")
    max_prompt_length: int = pending(1024, ge=1, description="Longest prompt in tokens.")
    beta: float | None = pending(
        None, gt=0, description="How close to stay to the reference model. None: 2.0 for simpo, else 0.1."
    )
    label_smoothing: float = pending(0.0, ge=0, lt=0.5, description="Share of labels that dpo takes to be wrong.")
    loss_type: str | None = pending(
        None, works=["sigmoid"], description="Form of the loss. None: simpo for simpo, kto for kto, else sigmoid."
    )
    sft_beta: float = pending(0.1, ge=0, lt=1, description="Weight of the plain loss on chosen answers, in dpo.")
    simpo_gamma: float = pending(1.0, ge=0, description="Margin of the reward, in simpo.")
    cpo_alpha: float = pending(1.0, ge=0, description="Weight of the plain loss on chosen answers, in cpo and simpo.")
    desirable_weight: float = pending(1.0, ge=0, description="Weight of wanted answers, in kto.")
    undesirable_weight: float = pending(1.0, ge=0, description="Weight of unwanted answers, in kto.")
