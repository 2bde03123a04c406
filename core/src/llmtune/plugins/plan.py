"""The run plan: every name resolved once, and the plugins to activate, in order.

Worker ranks read the plan from `run.json` and activate the same list; they never rescan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from llmtune.plugins.catalogue import BUILTIN, Catalogue, Entry


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run uses. Plain data, written into the run folder."""

    command: str
    choices: dict[str, str] = field(default_factory=dict)
    """kind -> qualified name ("lora::lora"); datasets are listed under "dataset" with commas."""
    plugins: tuple[str, ...] = ()
    """Plugins to activate, core first, then by name."""
    versions: dict[str, str] = field(default_factory=dict)
    """Distribution -> version of every plugin in the plan."""
    local: tuple[str, ...] = ()
    """Files of --custom_register_path."""
    target_modules: tuple[str, ...] = ()
    """Layers that the model's family adapts by default."""
    quantization_bit: int = 0
    resolved: dict[str, str] = field(default_factory=dict)
    """Flag -> "value (rule)" for every None or AUTO that a rule decided."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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
