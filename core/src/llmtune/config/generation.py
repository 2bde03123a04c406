"""Flags about generating text."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class GenerationSection(Section):
    """Generation"""

    max_new_tokens: int = Field(2048, ge=1, description="Longest answer in tokens.")
    do_sample: bool = Field(True, description="Sample; false takes the likeliest token each time.")
    temperature: float = Field(0.3, ge=0, description="Sharpness of sampling; 0 is the same as --do_sample false.")
    top_k: int = Field(20, ge=0, description="Sample among this many tokens; 0: all.")
    top_p: float = Field(0.7, gt=0, le=1, description="Sample among the likeliest tokens of this total probability.")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1, tokens already used become less likely.")
    num_beams: int = Field(1, ge=1, description="Beams of beam search; 1: none.")
