"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path with `~` expanded. Unlike `Path.expanduser` it leaves the `~` of an unknown user."""
    return Path(os.path.expanduser(text))
