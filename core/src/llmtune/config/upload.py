"""Flags about uploading what came out."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class UploadSection(Section):
    """Upload"""

    push_to_hub: bool = Field(False, description="Upload the result to a hub; the flags below and --hub say where.")
    hub_model_id: str | None = Field(
        None,
        description="Repository to upload to, NAME or OWNER/NAME; it is created when missing. "
        "None: <model_type>-<sft_type>.",
    )
    hub_private_repo: bool = Field(False, description="Create the repository as a private one.")
