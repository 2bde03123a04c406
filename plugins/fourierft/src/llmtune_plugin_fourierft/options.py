"""Flags of the tuner `fourierft` (arXiv:2405.03003)."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import TargetLayers


class FourierftOptions(TargetLayers):
    """FourierFT"""

    fourier_n_frequency: int = Field(2000, ge=1, description="Frequencies that are learned per layer.")
    fourier_scaling: float = Field(300.0, gt=0, description="Scale of the update.")
