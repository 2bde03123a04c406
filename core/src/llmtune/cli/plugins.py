"""`llmtune plugins`: list, doctor, validate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmtune.cli.table import text_table
from llmtune.config.environment import cache_folder
from llmtune.plugins.catalogue import Catalogue, Plugin
from llmtune.plugins.health import Finding, remembered, state_of

_SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=_SETTINGS
)


@app.callback(invoke_without_command=True)
def plugins(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List plugins, find out what is wrong with one, validate your own."""
    if context.invoked_subcommand is None:
        show_list(context, as_json)


@app.command("list")
def show_list(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False
) -> None:
    """List every plugin with its state and what it adds; imports none of them."""
    catalogue: Catalogue = context.obj.catalogue
    memory = remembered(_memory_file())
    rows = [(plugin, state_of(plugin, catalogue, memory)) for plugin in catalogue.plugins]
    if as_json:
        print(json.dumps([_as_json(*row) for row in rows], indent=1, ensure_ascii=False))
        return
    print(text_table(["PLUGIN", "VERSION", "STATE", "ADDS"], [_cells(*row) for row in rows]))
    problems = [(plugin, finding) for plugin, finding in rows if finding.state not in ("ok", "disabled")]
    for plugin, finding in problems:
        print(f"\n{plugin}: {finding.state}\n  {finding.reason}")
    if problems:
        print("\nllmtune plugins doctor NAME tells more")


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


@app.command()
def doctor(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="One plugin; all without it.")] = "",
) -> None:
    """Import plugins, each in a process of its own, and say what is wrong and how to mend it."""
    from llmtune.plugins.health import examine, remember

    catalogue: Catalogue = context.obj.catalogue
    chosen = [catalogue.plugin(name)] if name else list(catalogue.plugins)
    findings = [(plugin, examine(plugin, catalogue)) for plugin in chosen if plugin.local is None]
    remember(_memory_file(), findings)
    for plugin, finding in findings:
        print(f"{plugin}: {finding.state}" + "".join(f"\n  {line}" for line in finding.lines()))
    bad = [plugin.name for plugin, finding in findings if finding.state not in ("ok", "disabled")]
    print(
        f"\n{len(findings) - len(bad)} of {len(findings)} plugins are fine"
        + (f"; not: {', '.join(bad)}" if bad else "")
    )
    if bad:
        raise typer.Exit(1)


@app.command()
def validate(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A plugin's folder, or its llmtune-plugin.toml.")],
) -> None:
    """Check a plugin of your own before you publish it."""
    from llmtune.plugins.validate import validate_folder

    problems = validate_folder(path, context.obj.catalogue)
    for problem in problems:
        print(f"- {problem}")
    print(f"{path}: {'not valid' if problems else 'valid'}")
    if problems:
        raise typer.Exit(1)
