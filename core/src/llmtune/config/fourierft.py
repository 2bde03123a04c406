"""Flags of the tuner `fourierft` (arXiv:2405.03003)."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class FourierftSection(Section):
    """FourierFT"""

    fourier_n_frequency: int = pending(2000, ge=1, description="Frequencies that are learned per layer.")
    fourier_scaling: float = pending(300.0, gt=0, description="Scale of the update.")
