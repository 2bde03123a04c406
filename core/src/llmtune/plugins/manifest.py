"""Read and check one plugin manifest (`llmtune-plugin.toml`). Imports no plugin code.

The format is described in docs/plugin-authors.md. A manifest holds facts only: which names a plugin
adds, of which kind, and what is known about each.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmtune.errors import ManifestError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "API",
    "KINDS",
    "Facts",
    "Manifest",
    "check_facts",
    "hub_ids",
    "is_fact",
    "parse_manifest",
    "read_manifest",
    "tomllib",
]

API = 1
"""Number of the plugin contract that this llmtune speaks."""

Facts = Mapping[str, Any]

_SHARED = frozenset({"summary", "requires", "aliases", "tags", "options"})
KINDS: dict[str, frozenset[str]] = {
    "model": frozenset({"template", "tuner", "dtype", "license", "size", "base", "architectures", "revision"}),
    "template": frozenset(
        {"prefix", "system_prefix", "prompt", "chat_sep", "suffix", "default_system", "stop_words", "system_in"}
        | {"auto_add_bos", "tools_prompt", "thinking", "thinking_form", "thinking_prefix", "thinking_empty"}
        | {"thinking_stripped"}
    ),
    "preprocessor": frozenset(),
    "dataset": frozenset(
        {"file", "preprocessor", "arguments", "columns", "subsets", "val_subsets", "rows", "huge", "revision"}
    ),
    "tuner": frozenset({"learning_rate", "quantized_base", "shareable", "saves", "instead_of", "when"}),
    "extension": frozenset({"when"}),
    "trainer": frozenset(),
    "engine": frozenset(),
    "hub": frozenset({"key"}),
    "quantizer": frozenset({"bits"}),
    "optimizer": frozenset(),
    "metric": frozenset(),
    "loss_scale": frozenset({"queries", "literals", "patterns", "turns"}),
    "tools_prompt": frozenset(
        {"describe", "call", "results", "tools_in", "results_in", "pattern", "pair", "stop_words"}
    ),
    "command": frozenset({"run", "help"}),
}
"""Kind -> the facts that its tables may state, besides the shared ones."""

_NEEDED = {
    "command": ({"run", "help"}, "both run and help"),
    "extension": ({"when", "options"}, "options, and under when the flag of them that asks for it"),
    "template": ({"prompt"}, "a prompt"),
    "tools_prompt": ({"describe", "call", "results"}, "describe, call and results"),
}

_REPLACING = {"when", "instead_of", "options"}
"""Facts of a tuner that takes the place of another where one of its flags asks for it."""

# Rows of these kinds carry one repository id per hub, under the key that the hub's own manifest
# declares (`ms`, `hf`, `pypi`, a company's own), so any further text value is read as a hub id.
_WITH_HUB_IDS = frozenset({"model", "dataset"})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One parsed manifest."""

    summary: str = ""
    module: str | None = None
    """Importable module with the hook implementations; None for a plugin that is pure data."""
    tables: Mapping[str, Mapping[str, Facts]] = field(default_factory=dict)
    """kind -> name -> facts, with model families already expanded to one row per checkpoint."""


def read_manifest(path: Path) -> Manifest:
    """Parse `path`; raise `ManifestError` with the reason when it breaks the contract."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except FileNotFoundError:
        raise ManifestError(f"the manifest {path.name} is not in the installed package") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"the manifest is not valid TOML: {error}") from error
    return parse_manifest(raw)


def parse_manifest(raw: dict[str, Any]) -> Manifest:
    """Check a manifest that is already a mapping (also what local plugins build)."""
    raw = dict(raw)
    _check_api(raw.pop("api", None))
    summary, module = raw.pop("summary", ""), raw.pop("module", None)
    if not isinstance(summary, str) or not isinstance(module, str | None):
        raise ManifestError("summary and module must be strings")
    return Manifest(
        summary=summary,
        module=module,
        tables={kind: _table(kind, table) for kind, table in raw.items()},
    )


def _check_api(api: object) -> None:
    if not isinstance(api, int):
        raise ManifestError(f"the manifest must start with 'api = {API}', found api = {api!r}")
    if api > API:
        raise ManifestError(
            f"needs plugin api {api}, this llmtune speaks api {API}",
            fix="upgrade llmtune: pip install --upgrade llmtune",
        )


def _table(kind: str, table: object) -> dict[str, Facts]:
    if kind not in KINDS:
        raise ManifestError(f"unknown table [{kind}]", fix=did_you_mean(kind, KINDS))
    if not isinstance(table, dict):
        raise ManifestError(f"[{kind}] must be a table of names, found {table!r}")
    rows: dict[str, Facts] = {}
    for name, facts in table.items():
        if not isinstance(facts, dict):
            raise ManifestError(f"[{kind}.{name}] must be a table, found {facts!r}")
        new = _checkpoints(name, facts) if kind == "model" else {name: facts}
        twice = sorted(rows.keys() & new.keys())
        if twice:
            raise ManifestError(f"{kind} {twice[0]!r} is listed twice")
        rows.update(new)
    for name, facts in rows.items():
        check_facts(kind, name, facts)
    return rows


def _checkpoints(family: str, facts: dict[str, Any]) -> dict[str, Facts]:
    """Expand a model family: what a checkpoint's own line says wins over the family's facts."""
    shared = {key: value for key, value in facts.items() if key != "ids"}
    ids = facts.get("ids")
    if not isinstance(ids, dict) or not ids:
        raise ManifestError(f"[model.{family}] needs at least one checkpoint in [model.{family}.ids]")
    for name, own in ids.items():
        if not isinstance(own, dict):
            raise ManifestError(f"model {name} must be a table of facts, found {own!r}")
    return {name: {**shared, "family": family, **own} for name, own in ids.items()}


def check_facts(kind: str, name: str, facts: Facts) -> None:
    """Raise `ManifestError` for a key that the kind does not have, or a value of the wrong form."""
    known = KINDS[kind] | _SHARED
    for key in ("aliases", "requires"):
        value = facts.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ManifestError(f"[{kind}.{name}] {key} must be a list of strings, found {value!r}")
    for key, value in facts.items():
        if key in known or (kind == "model" and key == "family"):
            continue
        if kind in _WITH_HUB_IDS and _is_repository_id(value):
            continue
        suggestion = did_you_mean(key, known)
        if kind in _WITH_HUB_IDS and isinstance(value, str) and not suggestion:
            continue
        raise ManifestError(f"[{kind}.{name}] has an unknown key {key!r}", fix=suggestion)
    if kind == "dataset":
        _check_dataset(name, facts)
    if kind == "template":
        _check_template(name, facts)
    if kind == "tuner" and not {"when", "instead_of"}.isdisjoint(facts) and not facts.keys() >= _REPLACING:
        raise ManifestError(f"[tuner.{name}] needs when, instead_of and options together, or none of the first two")
    needed, said = _NEEDED.get(kind, (set(), ""))
    if not needed <= facts.keys():
        raise ManifestError(f"[{kind}.{name}] needs {said}")


_SLOTS = ("{{SYSTEM}}", "{{QUERY}}", "{{THINKING}}", "{{ROUND0}}", "{{ROUND1}}")
_WORDS = {
    "system_in": ("prefix", "first_user", "last_user"),
    "thinking": ("keep", "strip_history"),
    "auto_add_bos": (True, False),
}
"""Fact of a template -> what it may be; `specs.TemplateSpec` says what each means."""


def _check_template(name: str, facts: Facts) -> None:
    for key, words in _WORDS.items():
        if key in facts and facts[key] not in words:
            known = ", ".join(map(str, words))
            raise ManifestError(f"[template.{name}] {key} must be one of {known}, found {facts[key]!r}")
    parts = {key: value for key, value in facts.items() if isinstance(value, list) and key != "stop_words"}
    texts = {key: "".join(part for part in value if isinstance(part, str)) for key, value in parts.items()}
    for key, text in texts.items():
        for slot in re.findall(r"\{\{\w+\}\}", text):
            if slot not in _SLOTS:
                raise ManifestError(
                    f"[template.{name}] {key} has an unknown slot {slot}", fix=did_you_mean(slot, _SLOTS)
                )
    if "prompt" in texts and "{{QUERY}}" not in texts["prompt"]:
        raise ManifestError(f"[template.{name}] prompt has no {{{{QUERY}}}}: every question would be lost")
    if texts.get("system_prefix") and "{{SYSTEM}}" not in texts["system_prefix"]:
        raise ManifestError(f"[template.{name}] system_prefix has no {{{{SYSTEM}}}}: every system prompt would be lost")


def _check_dataset(name: str, facts: Facts) -> None:
    for key in ("columns", "arguments"):
        if not isinstance(facts.get(key, {}), dict):
            raise ManifestError(f"[dataset.{name}] {key} must be a table, found {facts[key]!r}")
    for key in ("subsets", "val_subsets"):
        for pair in facts.get(key, []):
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise ManifestError(f"[dataset.{name}] {key} must be a list of [subset, split], found {pair!r}")


def _is_repository_id(value: object) -> bool:
    """Whether a value is clearly one: a hub may have any key."""
    return isinstance(value, str) and ("/" in value or "==" in value)


def is_fact(kind: str, key: str, value: object) -> bool:
    """Whether `key` says something to core in a row of `kind`: a known fact, or a repository id."""
    return key in KINDS[kind] | _SHARED or (kind in _WITH_HUB_IDS and _is_repository_id(value))


def hub_ids(facts: Facts) -> dict[str, str]:
    """Return the repository ids of a model or dataset row: hub key -> id."""
    known = KINDS["model"] | KINDS["dataset"] | _SHARED | {"family"}
    return {key: value for key, value in facts.items() if key not in known and isinstance(value, str)}
