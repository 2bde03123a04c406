"""Flags of the tuner `adapter` (arXiv:1902.00751)."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import Section


class AdapterOptions(Section):
    """Adapter"""

    adapter_act: str = Field("gelu", description="Activation between the two projections.")
    adapter_length: int = Field(128, ge=1, description="Width of the bottleneck.")
