"""Flags of the OpenAI-compatible server."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class ServerSection(Section):
    """Server"""

    api_key: str | None = pending(
        None, secret=True, description="Key that requests must carry. None: no key is asked for."
    )
    ssl_keyfile: str | None = pending(None, description="Private key for https.")
    ssl_certfile: str | None = pending(None, description="Certificate for https.")
    log_interval: int = pending(10, ge=0, description="Seconds between lines of statistics; 0: none.")
    owned_by: str = pending("llmtune", description="Owner that the list of models names.")
