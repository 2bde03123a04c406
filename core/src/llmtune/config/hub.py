"""Flags about hubs."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class HubSection(Section):
    """Hub"""

    hub: str | None = Field(
        None,
        description="Hub to fetch from: modelscope, huggingface, pypi ... None tries the cache, then each in turn.",
    )
    use_hf: bool | None = Field(None, description="The same as --hub huggingface (also USE_HF=1).")
    offline: bool = Field(False, description="Use only what is in the cache; open no connection.")
