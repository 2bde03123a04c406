"""Flags about the files that weights are written to."""

from __future__ import annotations

from pydantic import Field, field_validator

from llmtune.config.section import Section


class WeightsSection(Section):
    """Weights"""

    save_safetensors: bool = Field(True, description="Always true: llmtune writes no pickle files.")

    @field_validator("save_safetensors")
    @classmethod
    def _no_pickle(cls, value: bool) -> bool:
        if not value:
            raise ValueError("must be true: .bin files are pickles, which run code when they are read")
        return value
