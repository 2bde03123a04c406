"""Flags of the tuner `llamapro` (arXiv:2401.02415)."""

from __future__ import annotations

from pydantic import Field, model_validator

from llmtune.api import Section


class LlamaproOptions(Section):
    """LLaMA-Pro"""

    llamapro_num_new_blocks: int = Field(4, ge=1, description="Layers that are inserted.")
    llamapro_num_groups: int | None = Field(
        None, ge=1, description="Places where they are inserted. None: one place for each."
    )

    @model_validator(mode="after")
    def _groups_divide_blocks(self) -> LlamaproOptions:
        groups = self.llamapro_num_groups or self.llamapro_num_new_blocks
        if self.llamapro_num_new_blocks % groups:
            raise ValueError(
                f"--llamapro_num_groups {groups} does not divide --llamapro_num_new_blocks "
                f"{self.llamapro_num_new_blocks}"
            )
        return self
