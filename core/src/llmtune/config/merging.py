"""Flags about merging adapters into the base model."""

from __future__ import annotations

from pydantic import Field, field_validator

from llmtune.config.section import Section, pending


class MergingSection(Section):
    """Merging"""

    merge_lora: bool = Field(False, description="Merge the adapter into the base model; writes <ckpt_dir>-merged.")
    merge_device_map: str | None = pending(
        None, works=["cpu"], description="Where to merge: cpu, auto, cuda:0. None: cpu."
    )
    save_safetensors: bool = Field(True, description="Always true: llmtune writes no pickle files.")

    @field_validator("save_safetensors")
    @classmethod
    def _no_pickle(cls, value: bool) -> bool:
        if not value:
            raise ValueError("must be true: .bin files are pickles, which run code when they are read")
        return value
