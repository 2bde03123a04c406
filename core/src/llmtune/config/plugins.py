"""Flags about plugins."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class PluginsSection(Section):
    """Plugins"""

    custom_register_path: list[str] = Field(
        [], description="Python files (or folders with a manifest) that register models, datasets, templates, tuners."
    )
