"""Flags about where a server listens."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class AddressSection(Section):
    """Address"""

    host: str = pending("127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in.")
    port: int | None = pending(None, ge=0, le=65535, description="Port to listen on. None: a free one.")
