"""Flags of the tuner `full`."""

from __future__ import annotations

from pydantic import Field

from llmtune.api import Section


class FullOptions(Section):
    """Full"""

    freeze_parameters: float = Field(
        0.0, ge=0, le=1, description="Freeze this share of the parameters, from the bottom up."
    )
    additional_trainable_parameters: list[str] = Field(
        [], description="Prefixes of parameter names that are trained although frozen."
    )
