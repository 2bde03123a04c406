"""Flags of the tuner `boft` (arXiv:2311.06243)."""

from __future__ import annotations

from pydantic import Field, model_validator

from llmtune.api import TargetLayers


class BoftOptions(TargetLayers):
    """BOFT"""

    boft_block_size: int = Field(4, ge=0, description="Size of the orthogonal blocks.")
    boft_block_num: int = Field(0, ge=0, description="Number of blocks, instead of --boft_block_size.")
    boft_n_butterfly_factor: int = Field(1, ge=1, description="Butterfly factors; 1 is OFT.")
    boft_dropout: float = Field(0.0, ge=0, lt=1, description="Share of the blocks that are left out in a step.")

    @model_validator(mode="after")
    def _size_or_number(self) -> BoftOptions:
        if self.boft_block_num and self.boft_block_size not in (0, 4):
            raise ValueError("--boft_block_size and --boft_block_num exclude each other; give one of them")
        if not (self.boft_block_num or self.boft_block_size):
            raise ValueError("--boft_block_size 0 needs --boft_block_num, the number of blocks instead of their size")
        return self
