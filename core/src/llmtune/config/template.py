"""Flags about templates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from llmtune.config.section import Section, named


class TemplateSection(Section):
    """Template"""

    template_type: str = named(
        "template", "AUTO", description="Chat format. AUTO: the one of the model (llmtune templates)."
    )
    system: str | None = Field(None, description="System prompt. None: the template's own; '' means none.")
    max_length: int = Field(2048, ge=-1, description="Longest row in tokens; -1 means no limit.")
    truncation_strategy: Literal["delete", "truncation_left", "truncation_right", "split"] = Field(
        "delete",
        description="What happens to longer rows: left out, cut on one side (on the right, answers keep their end), "
        "or, plain text only, split.",
    )
    tools_prompt: str = named(
        "tools_prompt", "AUTO", description="How tools are described to the model. AUTO: as the template's models know."
    )

    special_tokens_in_text: bool = Field(
        False,
        description="Names of control tokens in the texts of rows become those tokens (fill-in-the-middle in pt). "
        "Only for texts that you vouch for: whoever wrote them can end turns and call tools.",
    )

    @field_validator("max_length")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (no limit) or at least 1")
        return value
