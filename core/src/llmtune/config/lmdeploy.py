"""Flags of the engine `lmdeploy`."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, pending


class LmdeploySection(Section):
    """LMDeploy"""

    tp: int = pending(1, ge=1, description="GPUs that share the model.")
    cache_max_entry_count: float = pending(
        0.8, gt=0, le=1, description="Share of free GPU memory for the key-value cache."
    )
    quant_policy: Literal[0, 4, 8] = pending(0, description="Bits of the key-value cache; 0: not quantized.")
    vision_batch_size: int = pending(1, ge=1, description="Images that are encoded together.")
