"""Flags of the tuner `boft` (arXiv:2311.06243)."""

from __future__ import annotations

from pydantic import model_validator

from llmtune.config.section import Section, pending


class BoftSection(Section):
    """BOFT"""

    boft_block_size: int = pending(4, ge=0, description="Size of the orthogonal blocks.")
    boft_block_num: int = pending(0, ge=0, description="Number of blocks, instead of --boft_block_size.")
    boft_n_butterfly_factor: int = pending(1, ge=1, description="Butterfly factors; 1 is OFT.")
    boft_dropout: float = pending(0.0, ge=0, lt=1, description="Share of the blocks that are left out in a step.")

    @model_validator(mode="after")
    def _size_or_number(self) -> BoftSection:
        if self.boft_block_num and self.boft_block_size not in (0, 4):
            raise ValueError("--boft_block_size and --boft_block_num exclude each other; give one of them")
        return self
