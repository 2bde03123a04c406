"""Flags of pages made with gradio."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class GradioSection(Section):
    """Page"""

    share: bool = pending(False, description="Open a public tunnel to the page. Anybody with the link can use it.")
