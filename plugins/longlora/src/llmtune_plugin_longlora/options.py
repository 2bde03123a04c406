"""Flags of the tuner `longlora` (arXiv:2309.12307)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.api import TargetLayers


class LongloraOptions(TargetLayers):
    """LongLoRA"""

    lora_rank: int = Field(8, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(32, ge=1, description="Scale of the update: alpha / rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the input of the update.")
    lora_dtype: Literal["AUTO", "fp16", "bf16", "fp32"] = Field(
        "AUTO",
        description="Type of the update. AUTO: fp32 over a half-precision base, so that small steps are not lost.",
    )
    modules_to_save: list[str] = Field(
        ["EMBEDDING", "LN"], description="Layers to train whole: names, EMBEDDING or LN."
    )
    longlora_group_size: int | None = Field(
        None, ge=2, description="Tokens that attend to each other in training. None: a quarter of the length."
    )
