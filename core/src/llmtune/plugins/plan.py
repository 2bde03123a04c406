"""Build the run plan from the chosen entries of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from llmtune.plugins.catalogue import BUILTIN, Catalogue, Entry
from llmtune.specs import RunPlan


def make_plan(command: str, chosen: Iterable[Entry], catalogue: Catalogue, local: Iterable[str] = ()) -> RunPlan:
    """Build the plan for the chosen entries; local plugins are always part of it."""
    entries = list(chosen)
    choices: dict[str, str] = {}
    for entry in entries:
        choices[entry.kind] = f"{choices[entry.kind]},{entry.qualified}" if entry.kind in choices else entry.qualified
    names = {entry.plugin.name for entry in entries} | {p.name for p in catalogue.plugins if p.local is not None}
    ordered = (BUILTIN, *sorted(names - {BUILTIN}))
    plugins = [catalogue.plugin(name) for name in ordered]
    return RunPlan(
        command=command,
        choices=choices,
        plugins=ordered,
        versions={plugin.dist: plugin.version for plugin in plugins},
        local=tuple(local),
    )
