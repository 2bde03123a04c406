"""Flags of LISA (arXiv:2403.17919)."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import Section


class LisaOptions(Section):
    """LISA"""

    lisa_activated_layers: int = Field(
        0, ge=0, description="Layers that are trained at a time, with --sft_type full; 0: no LISA."
    )
    lisa_step_interval: int = Field(20, ge=1, description="Steps after which other layers are drawn.")
