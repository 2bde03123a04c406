"""Check a plugin's folder before it is published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmtune.errors import LlmtuneError
from llmtune.plugins.catalogue import Catalogue, Plugin
from llmtune.plugins.health import heavy_imports, module_path
from llmtune.plugins.manifest import Manifest, hub_ids, read_manifest

_HOOKS = {
    "tuner": "llmtune_create_tuner",
    "trainer": "llmtune_create_trainer",
    "engine": "llmtune_create_engine",
    "hub": "llmtune_create_hub",
    "quantizer": "llmtune_create_quantizer",
    "metric": "llmtune_create_metric",
    "preprocessor": "llmtune_create_preprocessor",
}
"""Kinds that are behaviour -> the hook that their plugin must implement."""


def validate_folder(path: Path, catalogue: Catalogue) -> list[str]:
    """Return what is wrong with the plugin at `path`, one sentence each."""
    found = [path] if path.is_file() else sorted(path.rglob("llmtune-plugin.toml"))
    if len(found) != 1:
        return [f"expected one llmtune-plugin.toml under {path}, found {len(found)}"]
    try:
        manifest = read_manifest(found[0])
    except LlmtuneError as error:
        return [str(error)]
    plugin = Plugin(name=path.name, dist=path.name, version="0", manifest_path=found[0], manifest=manifest)
    return [
        *_references(manifest, catalogue),
        *_names(manifest, catalogue, found[0]),
        *_module(plugin),
        *_package(path, manifest),
    ]


def _references(manifest: Manifest, catalogue: Catalogue) -> Iterator[str]:
    templates = {*catalogue.names("template"), *manifest.tables.get("template", {})}
    preprocessors = {*catalogue.names("preprocessor"), *manifest.tables.get("preprocessor", {})}
    hubs = {entry.facts.get("key", entry.name) for entry in catalogue.entries("hub")}
    for name, facts in manifest.tables.get("model", {}).items():
        if facts.get("template") not in templates:
            yield f"model {name}: template {facts.get('template')!r} is in no installed plugin"
        for hub in sorted(set(hub_ids(facts)) - hubs):
            yield f"model {name}: no installed hub has the key {hub!r}"
    for name, facts in manifest.tables.get("dataset", {}).items():
        if facts.get("preprocessor", "auto") not in preprocessors:
            yield f"dataset {name}: unknown preprocessor {facts['preprocessor']!r}"


def _names(manifest: Manifest, catalogue: Catalogue, path: Path) -> Iterator[str]:
    for kind, rows in manifest.tables.items():
        for name in rows:
            for entry in catalogue.entries(kind):
                same_file = (
                    entry.plugin.manifest_path is not None and entry.plugin.manifest_path.resolve() == path.resolve()
                )
                if entry.name == name and not same_file:
                    yield f"{kind} {name!r} is also claimed by {entry.plugin}"


def _module(plugin: Plugin) -> Iterator[str]:
    needed = sorted({hook for kind, hook in _HOOKS.items() if kind in plugin.manifest.tables})
    path = module_path(plugin)
    if path is None:
        if needed:
            yield f"the manifest needs a module that implements {', '.join(needed)}"
        return
    if not path.is_file():
        yield f"module {plugin.manifest.module} is not at {path}"
        return
    source = path.read_text(encoding="utf-8")
    yield from (
        f"{path.name} does not implement {hook}"
        for hook in needed
        if not re.search(rf"^def {hook}\b", source, re.MULTILINE)
    )
    for heavy in heavy_imports(source):
        yield f"{path.name} imports {heavy} at module level; move it into a function or a _*.py module"


def _package(path: Path, manifest: Manifest) -> Iterator[str]:
    project = path / "pyproject.toml"
    if not path.is_dir() or not project.is_file():
        return
    points = _toml(project).get("project", {}).get("entry-points", {}).get("llmtune.plugins", {})
    if not points:
        yield 'pyproject.toml needs [project.entry-points."llmtune.plugins"]: name = "module:llmtune-plugin.toml"'
    if not manifest.summary:
        yield "the manifest has no summary"


def _toml(path: Path) -> Any:
    from llmtune.plugins.manifest import tomllib

    return tomllib.loads(path.read_text(encoding="utf-8"))
