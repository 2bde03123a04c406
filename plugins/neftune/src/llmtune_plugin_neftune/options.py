"""Flags of NEFTune (arXiv:2310.05914)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.api import Section


class NeftuneOptions(Section):
    """NEFTune"""

    neftune_noise_alpha: float | None = Field(
        None, ge=0, description="Noise on the embeddings while training; 5, 10 and 15 are common."
    )
    neftune_backend: Literal["swift", "transformers"] | None = Field(
        None, description="Whose noise: the two are the same. None: transformers."
    )
