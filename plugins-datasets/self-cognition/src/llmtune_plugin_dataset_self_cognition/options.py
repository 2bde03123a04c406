"""Flags of the dataset `self-cognition`."""

from __future__ import annotations

from pydantic import Field, field_validator

from llmtune.api import Section


class SelfCognitionOptions(Section):
    """Self-cognition"""

    model_name: list[str | None] = Field(
        [None, None], description="The model's Chinese and English name; one value serves both languages."
    )
    model_author: list[str | None] = Field(
        [None, None], description="The author's Chinese and English name; one value serves both languages."
    )

    @field_validator("model_name", "model_author")
    @classmethod
    def _two_languages(cls, value: list[str | None]) -> list[str | None]:
        if len(value) == 1:
            return value * 2
        if len(value) != 2:
            raise ValueError("takes the Chinese and the English value; quote a value that contains spaces")
        return value
