"""Flags of the tuner `lora`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from llmtune.api import TargetLayers, UsageError


class LoraOptions(TargetLayers):
    """LoRA"""

    lora_rank: int = Field(8, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(32, ge=1, description="Scale of the update: alpha / rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the input of the update.")
    init_lora_weights: str = Field("true", description="true, false, gaussian or pissa.")
    lora_bias_trainable: Literal["none", "all"] = Field("none", description="Train the biases as well.")
    lora_dtype: Literal["AUTO", "fp16", "bf16", "fp32"] = Field(
        "AUTO",
        description="Type of the update. AUTO: fp32 over a half-precision base, so that small steps are not lost.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(rank) (arXiv:2312.03732).")
    use_dora: bool = Field(False, description="Train magnitude and direction apart (arXiv:2402.09353).")
    lora_lr_ratio: float | None = Field(
        None, gt=0, description="LoRA+: B learns this many times faster than A (arXiv:2402.12354)."
    )

    @field_validator("init_lora_weights")
    @classmethod
    def _known_init(cls, value: str) -> str:
        value = value.lower()
        if re.fullmatch(r"pissa_niter_\d+", value):
            # peft computes the start again when it loads an adapter, here from other random numbers.
            raise UsageError(
                f"--init_lora_weights {value} is not available yet",
                fix="use --init_lora_weights pissa: its exact SVD can be repeated when the adapter is loaded",
            )
        if value not in ("true", "false", "gaussian", "pissa"):
            raise ValueError("must be true, false, gaussian or pissa")
        return value
