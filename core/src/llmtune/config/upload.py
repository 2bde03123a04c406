"""Flags about uploading what came out."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class UploadSection(Section):
    """Upload"""

    push_to_hub: bool = pending(False, description="Upload the result to a hub.")
    hub_model_id: str | None = pending(
        None, description="Repository to upload to; it is created when missing. None: <model_type>-<sft_type>."
    )
    hub_private_repo: bool = pending(False, description="Create the repository as a private one.")
