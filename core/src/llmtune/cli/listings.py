"""`llmtune models`, `datasets`, `templates`, `tuners`, `engines`, `hubs`: what the catalogue knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from llmtune.cli.table import text_table
from llmtune.errors import did_you_mean
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manifest import hub_ids

Column = tuple[str, Callable[[Entry], str]]

_PLUGIN: Column = ("PLUGIN", lambda entry: entry.plugin.name)
_SUMMARY: Column = ("SUMMARY", lambda entry: str(entry.facts.get("summary", "")))
_IDS: Column = ("IDS", lambda entry: ", ".join(f"{hub}:{repo}" for hub, repo in hub_ids(entry.facts).items()))


def _fact(name: str) -> Callable[[Entry], str]:
    return lambda entry: str(entry.facts.get(name, ""))


def _listing(kinds: Sequence[str], columns: Sequence[Column]) -> typer.Typer:
    """Build one listing command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command(context_settings={"help_option_names": ["-h", "--help"]})
    def show(
        context: typer.Context,
        filter: Annotated[str, typer.Argument(help="Only names that contain this text.")] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print every fact as JSON.")] = False,
        custom_register_path: Annotated[
            list[str] | None, typer.Option("--custom_register_path", help="Include this file's names.")
        ] = None,
    ) -> None:
        """List names with their owner and facts."""
        catalogue: Catalogue = context.obj.catalogue
        entries = [entry for kind in kinds for entry in catalogue.entries(kind) if filter in entry.name]
        if as_json:
            print(json.dumps([_as_json(entry) for entry in entries], indent=1, ensure_ascii=False, default=str))
        elif entries:
            header = ["NAME", *(title for title, _ in columns)]
            print(text_table(header, [[entry.name, *(cell(entry) for _, cell in columns)] for entry in entries]))
        else:
            hint = did_you_mean(filter, [name for kind in kinds for name in catalogue.names(kind)]) if filter else ""
            print(f"no {kinds[0]} matches {filter!r}. {hint}" if filter else f"no {kinds[0]} is installed")

    return app


def _as_json(entry: Entry) -> dict[str, Any]:
    owner = {"plugin": entry.plugin.name, "dist": entry.plugin.dist, "version": entry.plugin.version}
    return {"name": entry.name, "kind": entry.kind, **owner, "facts": dict(entry.facts)}


models = _listing(["model"], [("SIZE", _fact("size")), ("TEMPLATE", _fact("template")), _PLUGIN, _IDS])
datasets = _listing(["dataset"], [("ROWS", _fact("rows")), _PLUGIN, _SUMMARY])
templates = _listing(["template"], [_PLUGIN, _SUMMARY])
tuners = _listing(["tuner", "quantizer"], [("KIND", lambda entry: entry.kind), _PLUGIN, _SUMMARY])
engines = _listing(["engine"], [("ALIASES", lambda entry: " ".join(entry.facts.get("aliases", []))), _PLUGIN, _SUMMARY])
hubs = _listing(["hub"], [("PREFIX", lambda entry: f"{entry.facts.get('key', entry.name)}::"), _PLUGIN, _SUMMARY])
