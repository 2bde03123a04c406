"""Paths as users write them, and folders that several processes make at once."""

from __future__ import annotations

import os
import re
from pathlib import Path


def put_in_place(staged: Path, final: Path) -> Path:
    """Move a complete folder to where all processes look for it; return `final`. The first one there stays.

    `staged` must be this process's own, on the same file system. What is complete is never removed: another process
    may be reading it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path with `~` expanded. Unlike `Path.expanduser` it leaves the `~` of an unknown user."""
    return Path(os.path.expanduser(text))


def split_names(text: str) -> list[str]:
    """`--dataset a,b c` names three datasets, as in SWIFT; a comma in a path that exists is no border."""
    parts, found = text.split(","), []
    while parts:
        count = next((count for count in range(len(parts), 1, -1) if _exists(",".join(parts[:count]))), 1)
        found.append(",".join(parts[:count]))
        parts = parts[count:]
    return [name for name in found if name != ""]


def _exists(selector: str) -> bool:
    path = user_path(re.sub(r"#\d+$", "", selector))
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
