"""Flags of the web interface."""

from __future__ import annotations

from typing import Literal

from llmtune.config.section import Section, pending


class InterfaceSection(Section):
    """Interface"""

    lang: Literal["zh", "en"] = pending("zh", description="Language of the page.")
