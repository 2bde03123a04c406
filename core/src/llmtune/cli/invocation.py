"""What a command is called with."""

from __future__ import annotations

from dataclasses import dataclass

from llmtune.plugins.catalogue import Catalogue


@dataclass(frozen=True)
class Invocation:
    """What a command gets besides its own arguments (`ctx.obj` in a typer command)."""

    catalogue: Catalogue
    """All names, those of local plugins included."""
    command: str
