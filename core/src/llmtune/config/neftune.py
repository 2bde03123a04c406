"""Flags of NEFTune (arXiv:2310.05914)."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, pending


class NeftuneSection(Section):
    """NEFTune"""

    neftune_noise_alpha: float | None = pending(
        None, ge=0, description="Noise on the embeddings while training; 5, 10 and 15 are common."
    )
    neftune_backend: Literal["swift", "transformers"] | None = pending(
        None, works=["transformers"], description="Who adds the noise. None: transformers."
    )
