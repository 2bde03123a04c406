"""Flags about plugins."""

from __future__ import annotations

import os

from pydantic import Field, field_validator

from llmtune.config.section import Section


class PluginsSection(Section):
    """Plugins"""

    custom_register_path: list[str] = Field(
        [], description="Python files (or folders with a manifest) that register models, datasets, templates, tuners."
    )

    @field_validator("custom_register_path")
    @classmethod
    def _exist(cls, value: list[str]) -> list[str]:
        for path in value:
            if not os.path.exists(os.path.expanduser(path)):  # unlike pathlib's, these raise for no text at all
                raise ValueError(f"no such file or folder: {path!r}")
        return value
