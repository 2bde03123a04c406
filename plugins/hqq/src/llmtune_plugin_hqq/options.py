"""Flags of the quantizer `hqq`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.api import Section


class HqqOptions(Section):
    """HQQ"""

    hqq_axis: Literal[0, 1] = Field(0, description="Axis along which weights are grouped.")
    hqq_dynamic_config_path: str | None = Field(
        None, description="JSON file with a configuration of its own for each named layer."
    )
