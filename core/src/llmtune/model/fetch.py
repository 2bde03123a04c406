"""Get a repository into the cache: which hub, in which order, and what to say when none answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmtune.config import environment
from llmtune.errors import HubUnreachable, NotInCache, PluginFailed, UnknownName, UsageError
from llmtune.interfaces.hub import Hub
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.requirements import check_requirements
from llmtune.specs import RunContext

# SWIFT's order: ModelScope unless the user asks for another; hubs that plugins add come after.
_ORDER = ("ms", "hf")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A local folder and where it came from."""

    folder: Path
    source: str


class Fetcher:
    """Fetches models and datasets for one run."""

    def __init__(self, manager: PluginManager, run: RunContext, *, hub: str | None, offline: bool) -> None:
        self.manager, self.run = manager, run
        self.offline = "--offline" if offline else environment.offline()
        """What keeps this run from opening connections, None where nothing does."""
        self.hub = hub
        """The hub that the user chose, None for each in turn."""

    def fetch(
        self,
        name: str,
        *,
        kind: Literal["model", "dataset"],
        ids: Mapping[str, str],
        hub: str | None = None,
        revision: str | None = None,
        weights: bool = True,
    ) -> Fetched:
        """Return the folder of `name`, from the cache of any candidate hub or else from the first that answers.

        `ids` are its repository ids by hub key; empty means that `name` is itself an id. `weights` False
        asks for tokenizer and config only.
        """
        candidates = self._candidates(name, kind, ids, hub)
        how: dict[str, Any] = {"kind": kind, "revision": revision, "weights": weights}
        for entry, repo in candidates:
            try:
                return self._snapshot(entry, repo, cached_only=True, **how)
            except (NotInCache, PluginFailed, UnknownName):
                continue
        if self.offline:
            tried = ", ".join(f"{entry.name}:{repo}" for entry, repo in candidates)
            raise NotInCache(
                f"{kind} {name!r} is not in the cache ({tried})",
                fix=f"run once without {self.offline}, or name a local folder",
            )
        return self._first_that_answers(name, candidates, how)

    def _first_that_answers(self, name: str, candidates: list[tuple[Entry, str]], how: Mapping[str, Any]) -> Fetched:
        failures: list[str] = []
        for number, (entry, repo) in enumerate(candidates):
            try:
                return self._snapshot(entry, repo, cached_only=False, **how)
            except (HubUnreachable, UnknownName, PluginFailed) as error:
                failures.append(f"{entry.name}: {error.problem}")
                if number + 1 < len(candidates):
                    other, repo = candidates[number + 1]
                    self.run.say(
                        f"note: {failures[-1]}\n      trying {other.name} ({repo}); --hub chooses one for good"
                    )
        raise HubUnreachable(
            f"{how['kind']} {name!r} cannot be fetched\n  " + "\n  ".join(failures), fix=self._way_out(how["kind"])
        )

    def _way_out(self, kind: str) -> str:
        hubs = ", ".join(entry.name for entry in self.manager.catalogue.entries("hub"))
        local = "--model_id_or_path /a/local/folder" if kind == "model" else "--dataset /a/local/file"
        return f"another hub: --hub NAME ({hubs}); without network: {local}, or --offline once it is in the cache"

    def _snapshot(self, entry: Entry, repo: str, **how: Any) -> Fetched:
        check_requirements(entry)
        hub: Hub = self.manager.provide("llmtune_create_hub", entry, name=entry.name, options=None, run=self.run)
        folder = hub.snapshot(repo, **how)
        return Fetched(folder=folder, source=f"{entry.name}:{repo}")

    def _candidates(self, name: str, kind: str, ids: Mapping[str, str], prefix: str | None) -> list[tuple[Entry, str]]:
        catalogue = self.manager.catalogue
        wanted = prefix or self.hub
        if wanted:
            entry = find_hub(wanted, catalogue)
            key = entry.facts.get("key", entry.name)
            if ids and key not in ids:
                raise UsageError(
                    f"{kind} {name!r} is not on the hub {entry.name}", fix=f"it is known on: {', '.join(sorted(ids))}"
                )
            return [(entry, ids.get(key, name))]
        hubs = {entry.facts.get("key", entry.name): entry for entry in catalogue.entries("hub")}
        order = sorted(hubs, key=lambda key: (_ORDER.index(key) if key in _ORDER else len(_ORDER), key))
        found = [(hubs[key], ids[key]) for key in order if key in ids]
        if not ids and order:
            found = [(hubs[order[0]], name)]
        if not found:
            raise UnknownName(
                f"no installed hub serves {kind} {name!r} (known on: {', '.join(sorted(ids)) or 'any hub'})",
                fix="pip install llmtune-plugin-modelscope llmtune-plugin-huggingface llmtune-plugin-pypi",
            )
        return found


def match_hub(name: str, catalogue: Catalogue) -> Entry | None:
    """Return the hub called `name`, or whose manifest `key` it is (HF, MS, pypi), ignoring case."""
    hubs = catalogue.entries("hub")
    return next((entry for entry in hubs if name.lower() in (entry.name, entry.facts.get("key"))), None)


def find_hub(name: str, catalogue: Catalogue) -> Entry:
    """Like `match_hub`; raises `UnknownName` with a suggestion."""
    return match_hub(name, catalogue) or catalogue.find("hub", name)
