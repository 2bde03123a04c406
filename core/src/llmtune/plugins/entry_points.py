"""Find installed plugins: the entry points of group `llmtune.plugins`, read from disk.

`importlib.metadata` would do the same but costs 70 ms to import (measured, with `python -c pass` at
20 ms), more than the rest of `llmtune --help` together.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmtune.errors import ManifestError

GROUP = "llmtune.plugins"


@dataclass(frozen=True, kw_only=True)
class EntryPoint:
    """One line of an installed distribution's `entry_points.txt`."""

    name: str
    value: str
    dist: str
    version: str

    def manifest_path(self) -> Path:
        """Locate the manifest next to the top-level module, without importing that module."""
        module, _, filename = self.value.partition(":")
        if not filename or not module.isidentifier():
            raise ManifestError(f"the entry point must read 'module:file.toml', found {self.value!r}")
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise ManifestError(f"the package {module} of the entry point is not installed")
        return Path(next(iter(spec.submodule_search_locations))) / filename


def installed_entry_points(search_path: list[str] | None = None) -> Iterator[EntryPoint]:
    """Yield the plugins on `search_path` (default `sys.path`), each distribution once.

    The working directory is skipped: nothing is ever picked up from where the user stands.
    """
    seen: set[str] = set()
    here = os.path.realpath(os.getcwd())
    for folder in sys.path if search_path is None else search_path:
        if folder == "" or not os.path.isdir(folder) or os.path.realpath(folder) == here:
            continue
        for entry in sorted(os.listdir(folder)):
            if not entry.endswith((".dist-info", ".egg-info")):
                continue
            dist, version = _dist_and_version(entry)
            if dist in seen:
                continue
            seen.add(dist)
            yield from _group_lines(os.path.join(folder, entry, "entry_points.txt"), dist, version)


def _dist_and_version(folder_name: str) -> tuple[str, str]:
    name, _, version = folder_name.rsplit(".", 1)[0].partition("-")
    return re.sub(r"[-_.]+", "-", name).lower(), version.split("-")[0]


def _group_lines(path: str, dist: str, version: str) -> Iterator[EntryPoint]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return
    if f"[{GROUP}]" not in text:
        return
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = line.strip("[]")
        elif section == GROUP and "=" in line:
            name, _, value = line.partition("=")
            yield EntryPoint(name=name.strip(), value=value.strip(), dist=dist, version=version)
