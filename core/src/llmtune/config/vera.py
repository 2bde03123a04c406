"""Flags of the tuner `vera` (arXiv:2310.11454)."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class VeraSection(Section):
    """VeRA"""

    vera_rank: int = pending(256, ge=1, description="Rank of the shared random matrices.")
    vera_projection_prng_key: int = pending(0, ge=0, description="Seed of the shared random matrices.")
    vera_dropout: float = pending(0.0, ge=0, lt=1, description="Dropout on the input of the update.")
    vera_d_initial: float = pending(0.1, description="Start value of the vector d.")
