"""Flags about what is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section, named


class TunerSection(Section):
    """Tuner"""

    sft_type: str = named("tuner", "lora", description="What is trained: lora, full ... (llmtune tuners).")
    tuner_backend: Literal["swift", "peft", "unsloth"] = Field(
        "peft",
        description="Library behind the adapters. swift: peft, whose form SWIFT reads as well. unsloth: not available.",
    )
