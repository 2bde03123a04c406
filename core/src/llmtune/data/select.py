"""From a selector to the catalogue entries that answer it."""

from __future__ import annotations

from dataclasses import dataclass

from llmtune.data.files import SUFFIXES
from llmtune.data.selector import Selector, parse_selector
from llmtune.errors import UnknownName, UsageError, did_you_mean
from llmtune.model.fetch import match_hub
from llmtune.plugins.catalogue import BUILTIN, Catalogue, Entry
from llmtune.plugins.manifest import hub_ids


@dataclass(frozen=True, kw_only=True)
class SelectedDataset:
    """A selector with the catalogue entries that answer it."""

    selector: Selector
    entry: Entry
    """Its row; core's `file` row for paths and unregistered repositories."""
    preprocessor: Entry


def select_dataset(text: str, catalogue: Catalogue) -> SelectedDataset:
    """Resolve a selector to entries; raise `UnknownName` for one that is neither a name, a path nor an id."""
    selector = parse_selector(text)
    entry = _dataset_entry(selector, catalogue)
    name = entry.facts.get("preprocessor", "auto")
    return SelectedDataset(selector=selector, entry=entry, preprocessor=_preprocessor_entry(name, entry, catalogue))


def _preprocessor_entry(name: str, entry: Entry, catalogue: Catalogue) -> Entry:
    """A plugin's dataset means its own preprocessor first."""
    own = entry.plugin.manifest.tables.get("preprocessor", {})
    return catalogue.find("preprocessor", f"{entry.plugin.name}::{name}" if name in own else name)


def _dataset_entry(selector: Selector, catalogue: Catalogue) -> Entry:
    files = catalogue.find("dataset", f"{BUILTIN}::file")
    if selector.path is not None:
        return files
    hub = match_hub(selector.hub, catalogue) if selector.hub else None
    known = catalogue.get("dataset", selector.name) if selector.hub is None or hub else None
    known = known or _by_hub_id(selector.name, catalogue)
    if known is not None:
        return known
    if selector.hub and hub is None:
        return catalogue.find("dataset", f"{selector.hub}::{selector.name}")
    if hub is not None or (selector.name.count("/") == 1 and not selector.name.endswith(_DATA_SUFFIXES)):
        return files
    if "/" in selector.name or selector.name.endswith(_DATA_SUFFIXES):
        raise UsageError(
            f"dataset {selector.text!r}: no such file or folder: {selector.name}",
            fix="check the path; relative paths start where you stand",
        )
    raise _unknown(selector, catalogue)


_DATA_SUFFIXES = (*SUFFIXES, ".gz", ".zst")


def _unknown(selector: Selector, catalogue: Catalogue) -> Exception:
    try:
        catalogue.find("dataset", selector.name)
    except UnknownName as error:
        if not did_you_mean(selector.name, catalogue.names("dataset")) and "pip install" not in error.fix:
            error.fix = f"{error.fix}; a file needs its path, a repository its owner/name"
        return error
    raise AssertionError(selector)


def _by_hub_id(name: str, catalogue: Catalogue) -> Entry | None:
    return next((entry for entry in catalogue.entries("dataset") if name in hub_ids(entry.facts).values()), None)
