"""`llmtune plugins`: list, doctor, validate. Parsed with argparse for the reason in `listings.py`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.config.environment import cache_folder
from llmtune.plugins.catalogue import Catalogue, Plugin
from llmtune.plugins.health import Finding, examine, remember, remembered, state_of
from llmtune.table import text_table

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation


def app(arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
    """Run one of the three."""
    given = _parser(prog_name).parse_args(arguments)
    if given.action == "doctor":
        return doctor(obj.catalogue, given.name)
    if given.action == "validate":
        return validate(obj.catalogue, given.path)
    return show_list(obj.catalogue, as_json=given.json)


def _parser(prog_name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog_name, description="List plugins, find out what is wrong, validate your own.")
    parser.set_defaults(action="list")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="every plugin, its state and what it adds (the default)")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    doctor = actions.add_parser("doctor", help="import plugins, each in a process of its own, and say what is wrong")
    doctor.add_argument("name", nargs="?", default="", help="one plugin; all without it")
    validate = actions.add_parser("validate", help="check a plugin of your own before you publish it")
    validate.add_argument("path", type=Path, help="its folder, or its llmtune-plugin.toml")
    return parser


def show_list(catalogue: Catalogue, *, as_json: bool) -> int:
    """List every plugin with its state and what it adds; imports none of them."""
    memory = remembered(_memory_file())
    rows = [(plugin, state_of(plugin, catalogue, memory)) for plugin in catalogue.plugins]
    if as_json:
        print(json.dumps([_as_json(*row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    print(text_table(["PLUGIN", "VERSION", "STATE", "ADDS"], [_cells(*row) for row in rows]))
    problems = [(plugin, finding) for plugin, finding in rows if finding.state not in ("ok", "disabled")]
    for plugin, finding in problems:
        print(f"\n{plugin}: {finding.state}", *finding.lines(), sep="\n  ")
    if problems:
        print("\nllmtune plugins doctor NAME tells more")
    return 0


def _memory_file() -> Path:
    return cache_folder() / "plugin-health.json"


def _cells(plugin: Plugin, finding: Finding) -> list[str]:
    counts = {kind: len(rows) for kind, rows in plugin.manifest.tables.items()}
    adds = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
    return [plugin.name, plugin.version, finding.state, adds or finding.reason]


def _as_json(plugin: Plugin, finding: Finding) -> dict[str, Any]:
    names = {kind: sorted(rows) for kind, rows in plugin.manifest.tables.items()}
    facts = {"name": plugin.name, "dist": plugin.dist, "version": plugin.version, "summary": plugin.manifest.summary}
    return {**facts, "state": finding.state, "reason": finding.reason, "fix": finding.fix, "adds": names}


def doctor(catalogue: Catalogue, name: str) -> int:
    """Import plugins, each in a process of its own; 1 when something is wrong."""
    chosen = [catalogue.plugin(name)] if name else list(catalogue.plugins)
    findings = [(plugin, examine(plugin, catalogue)) for plugin in chosen if plugin.local is None]
    remember(_memory_file(), findings)
    for plugin, finding in findings:
        print(f"{plugin}: {finding.state}", *finding.lines(), sep="\n  ")
    bad = [plugin.name for plugin, finding in findings if finding.state not in ("ok", "disabled")]
    print(
        f"\n{len(findings) - len(bad)} of {len(findings)} plugins are fine"
        + (f"; not: {', '.join(bad)}" if bad else "")
    )
    return 1 if bad else 0


def validate(catalogue: Catalogue, path: Path) -> int:
    """Print what is wrong with the plugin at `path`; 1 when there is anything."""
    from llmtune.plugins.validate import validate_folder

    problems = validate_folder(path, catalogue)
    for problem in problems:
        print(f"- {problem}")
    print(f"{path}: {'not valid' if problems else 'valid'}")
    return 1 if problems else 0
