"""Flags about merging adapters into the base model."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section, pending


class MergingSection(Section):
    """Merging"""

    merge_lora: bool = Field(False, description="Merge the adapter into the base model; writes <ckpt_dir>-merged.")
    merge_device_map: str | None = pending(
        None, works=["cpu"], description="Where to merge: cpu, auto, cuda:0. None: cpu."
    )
