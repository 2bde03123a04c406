"""Flags about what is trained."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class TunerSection(Section):
    """Tuner"""

    sft_type: str = Field("lora", description="What is trained: lora, full ... (llmtune tuners).")
