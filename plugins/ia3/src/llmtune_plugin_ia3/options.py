"""Flags of the tuner `ia3` (arXiv:2205.05638)."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import TargetLayers


class Ia3Options(TargetLayers):
    """IA3"""

    ia3_feedforward_modules: list[str] = Field([], description="Layers of the MLP, whose input is scaled.")
