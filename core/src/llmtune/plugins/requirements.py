"""Check what a name requires from package metadata, before anything is imported."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement

from llmtune.errors import PluginFailed
from llmtune.plugins.catalogue import Entry


def missing_requirements(requires: list[str]) -> list[tuple[str, str]]:
    """Return (requirement, what was found) for each of `requires` that is not met here."""
    missing = []
    for text in requires:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append((text, "not installed"))
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append((text, f"{version} is installed"))
    return missing


def check_requirements(entry: Entry) -> None:
    """Raise `PluginFailed` when something that `entry` requires is missing."""
    missing = missing_requirements(list(entry.facts.get("requires", ())))
    if missing:
        listed = ", ".join(f"{text} ({found})" for text, found in missing)
        quoted = " ".join(f"'{text}'" for text, _ in missing)
        raise PluginFailed(f"{entry.kind} {entry.name!r} of {entry.plugin} needs {listed}", fix=f"pip install {quoted}")
