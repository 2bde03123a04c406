"""Flags of the tuner `ia3` (arXiv:2205.05638)."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class Ia3Section(Section):
    """IA3"""

    ia3_feedforward_modules: list[str] = pending([], description="Layers of the MLP, whose input is scaled.")
