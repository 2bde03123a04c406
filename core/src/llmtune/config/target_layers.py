"""Flags of every tuner that adapts chosen layers; its options class inherits them."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from llmtune.config.section import Section


class TargetLayers(Section):
    """Layers to adapt"""

    target_modules: list[str] = Field(
        ["DEFAULT"],
        description="Layers to adapt: names, DEFAULT (the model's), ALL (all linear ones but the head) or EMBEDDING.",
    )
    target_regex: str | None = Field(
        None, description="Regular expression over layer names, instead of --target_modules."
    )
    modules_to_save: list[str] = Field([], description="Layers to train whole: names, EMBEDDING or LN.")

    @field_validator("target_regex")
    @classmethod
    def _valid_regex(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value
