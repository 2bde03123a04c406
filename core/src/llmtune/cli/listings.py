"""`llmtune models`, `datasets`, `templates`, `tuners`, `engines`, `hubs`: what the catalogue knows.

Parsed with argparse: typer builds its parameters with pydantic, and both together take 0.5 s to
import, several times what a listing of 1,000 names takes in all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmtune.errors import did_you_mean
from llmtune.plugins.catalogue import Entry
from llmtune.plugins.manifest import hub_ids
from llmtune.table import text_table

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation

Column = tuple[str, Callable[[Entry], str]]

_PLUGIN: Column = ("PLUGIN", lambda entry: entry.plugin.name)
_SUMMARY: Column = ("SUMMARY", lambda entry: str(entry.facts.get("summary", "")))
_IDS: Column = ("IDS", lambda entry: ", ".join(f"{hub}:{repo}" for hub, repo in hub_ids(entry.facts).items()))


def _fact(name: str) -> Callable[[Entry], str]:
    return lambda entry: str(entry.facts.get(name, ""))


@dataclass(frozen=True)
class Listing:
    """One listing command."""

    kinds: Sequence[str]
    columns: Sequence[Column]

    def __call__(self, arguments: Sequence[str], *, prog_name: str, obj: Invocation) -> int:
        if self.kinds == ["template"] and arguments[:1] == ["show"]:
            from llmtune.cli.show import show_template

            return show_template(arguments[1:], f"{prog_name} show", obj.catalogue)
        if self.kinds == ["model"] and arguments[:1] == ["show"]:
            from llmtune.cli.show_model import show_model

            return show_model(arguments[1:], f"{prog_name} show", obj.catalogue)
        given = self._parser(prog_name).parse_args(arguments)
        if given.model_type or given.model_id_or_path:
            from llmtune.cli.show_tuners import show_tuners

            return show_tuners(given.model_type, given.model_id_or_path, obj.catalogue, as_json=given.json)
        entries = [entry for kind in self.kinds for entry in obj.catalogue.entries(kind) if _matches(entry, given)]
        if given.json:
            print(json.dumps([_as_json(entry) for entry in entries], indent=1, ensure_ascii=False, default=str))
        elif entries:
            header = ["NAME", *(title for title, _ in self.columns)]
            print(text_table(header, [[entry.name, *(cell(entry) for _, cell in self.columns)] for entry in entries]))
        else:
            known = [name for kind in self.kinds for name in obj.catalogue.names(kind)]
            asked = " ".join(filter(None, (given.filter, given.search, given.family)))
            print(f"no {self.kinds[0]} matches {asked!r}", did_you_mean(asked, known))
        return 0

    def _parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog_name, description=f"List every {' and '.join(self.kinds)} with its owner."
        )
        parser.add_argument("filter", nargs="?", default="", help="only names that contain this text")
        parser.add_argument("--search", default="", metavar="TEXT", help="only those with TEXT in any fact")
        parser.add_argument("--json", action="store_true", help="print every fact as JSON")
        sizes = "say what each tuner trains of this model, and the memory it takes"
        parser.add_argument("--model_type", help=sizes if "tuner" in self.kinds else argparse.SUPPRESS)
        folder = "the same for a model by its hub id or folder"
        parser.add_argument("--model_id_or_path", help=folder if "tuner" in self.kinds else argparse.SUPPRESS)
        family = "only the models of this family, or of the plugin of this name"
        parser.add_argument("--family", default="", help=family if self.kinds == ["model"] else argparse.SUPPRESS)
        return parser


def _matches(entry: Entry, given: argparse.Namespace) -> bool:
    family = given.family.lower()
    if family and family not in (str(entry.facts.get("family", "")).lower(), entry.plugin.name):
        return False
    return given.filter in entry.name and given.search.lower() in f"{entry.name} {_values(entry.facts)}".lower()


def _values(facts: Any) -> str:
    """Return all texts among facts, without their keys."""
    if isinstance(facts, dict):
        facts = list(facts.values())
    return " ".join(map(_values, facts)) if isinstance(facts, list | tuple) else str(facts)


def _as_json(entry: Entry) -> dict[str, Any]:
    owner = {"plugin": entry.plugin.name, "dist": entry.plugin.dist, "version": entry.plugin.version}
    return {"name": entry.name, "kind": entry.kind, **owner, "facts": dict(entry.facts)}


models = Listing(["model"], [("SIZE", _fact("size")), ("TEMPLATE", _fact("template")), _PLUGIN, _IDS])
datasets = Listing(["dataset"], [("ROWS", _fact("rows")), _PLUGIN, _SUMMARY])
templates = Listing(["template"], [_PLUGIN, _SUMMARY])
tuners = Listing(["tuner", "quantizer"], [("KIND", lambda entry: entry.kind), _PLUGIN, _SUMMARY])
tools_prompts = Listing(["tools_prompt"], [_PLUGIN, _SUMMARY])
loss_scales = Listing(["loss_scale"], [_PLUGIN, _SUMMARY])
engines = Listing(["engine"], [("ALIASES", lambda entry: " ".join(entry.facts.get("aliases", []))), _PLUGIN, _SUMMARY])
hubs = Listing(["hub"], [("PREFIX", lambda entry: f"{entry.facts.get('key', entry.name)}::"), _PLUGIN, _SUMMARY])
