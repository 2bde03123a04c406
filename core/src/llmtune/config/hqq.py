"""Flags of the quantizer `hqq`."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, pending


class HqqSection(Section):
    """HQQ"""

    hqq_axis: Literal[0, 1] = pending(0, description="Axis along which weights are grouped.")
    hqq_dynamic_config_path: str | None = pending(
        None, description="JSON file with a configuration of its own for each named layer."
    )
