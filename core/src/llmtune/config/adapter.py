"""Flags of the tuner `adapter` (arXiv:1902.00751)."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class AdapterSection(Section):
    """Adapter"""

    adapter_act: str = pending("gelu", description="Activation between the two projections.")
    adapter_length: int = pending(128, ge=1, description="Width of the bottleneck.")
