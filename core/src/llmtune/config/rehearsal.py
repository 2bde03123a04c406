"""Flags about trying a run out."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class RehearsalSection(Section):
    """Rehearsal"""

    dry_run: bool = Field(False, description="Resolve and check everything, rows included, and train nothing.")
