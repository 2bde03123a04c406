"""Flags of the tuner `vera` (arXiv:2310.11454)."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import TargetLayers


class VeraOptions(TargetLayers):
    """VeRA"""

    vera_rank: int = Field(256, ge=1, description="Rank of the shared random matrices.")
    vera_projection_prng_key: int = Field(0, ge=0, description="Seed of the shared random matrices.")
    vera_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the input of the update.")
    vera_d_initial: float = Field(0.1, description="Start value of the vector d.")
