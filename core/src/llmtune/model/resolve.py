"""Which model a run means: from --model_type and --model_id_or_path to a catalogue row and a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmtune.errors import UnknownName, UsageError, did_you_mean
from llmtune.model.fetch import Fetcher
from llmtune.paths import user_path
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manifest import hub_ids
from llmtune.specs import ModelSpec

if TYPE_CHECKING:
    from llmtune.config.model import ModelSection


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A row of the catalogue and, when the user named one, a place to take the weights from."""

    entry: Entry
    path: Path | None = None
    repo: str | None = None
    hub: str | None = None


def choose_model(section: ModelSection, catalogue: Catalogue) -> ModelChoice:
    """Resolve the flags; raise `UsageError` or `UnknownName` with the flag to add."""
    if section.model_id_or_path is None:
        if section.model_type is None:
            raise UsageError("no model was chosen", fix="add --model_type NAME (llmtune models) or --model_id_or_path")
        entry = catalogue.find("model", section.model_type)
        folder = entry.facts.get("ms", "")
        return ModelChoice(entry=entry, path=Path(folder)) if Path(folder).is_absolute() else ModelChoice(entry=entry)
    hub, _, repo = section.model_id_or_path.rpartition("::")
    path = user_path(repo)
    is_folder = not hub and os.path.isdir(path)
    if not hub and not is_folder and _looks_like_path(repo):
        raise UsageError(f"--model_id_or_path {repo}: no such folder", fix="give a folder, or owner/name for a hub")
    entry = catalogue.find("model", section.model_type) if section.model_type else _by_id(repo, catalogue)
    if is_folder:
        return ModelChoice(entry=entry, path=path.resolve())
    return ModelChoice(entry=entry, repo=repo, hub=hub or None)


def _looks_like_path(repo: str) -> bool:
    return repo.startswith(("/", ".", "~")) or (repo.count("/") != 1 and "==" not in repo)


def _by_id(repo: str, catalogue: Catalogue) -> Entry:
    entries = catalogue.entries("model")
    for entry in entries:
        if repo.lower() in (value.lower() for value in hub_ids(entry.facts).values()):
            return entry
    known = {value: entry.name for entry in entries for value in hub_ids(entry.facts).values()}
    raise UnknownName(
        f"{repo!r} is not a registered model, so its template and target modules are not known",
        fix=did_you_mean(repo, known) or "add --model_type NAME of the family it belongs to (llmtune models)",
    )


def fetch_model(
    choice: ModelChoice, fetcher: Fetcher, revision: str | None = None, *, weights: bool = True
) -> ModelSpec:
    """Return the spec with its local folder, fetching it when needed (without `weights`: tokenizer and config)."""
    entry = choice.entry
    if choice.path is not None:
        return ModelSpec(name=entry.name, facts=entry.facts, folder=choice.path, source=str(choice.path))
    ids = {} if choice.repo else hub_ids(entry.facts)
    if not ids and choice.repo is None:
        return ModelSpec(name=entry.name, facts=entry.facts, folder=None, source=str(entry.plugin))
    fetched = fetcher.fetch(
        choice.repo or entry.name,
        kind="model",
        ids=ids,
        hub=choice.hub,
        revision=revision or (entry.facts.get("revision") if ids else None),
        weights=weights,
    )
    return ModelSpec(name=entry.name, facts=entry.facts, folder=fetched.folder, source=fetched.source)
