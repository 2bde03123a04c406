"""The catalogue: every name that the installed plugins provide, and who owns it.

Built once in `main()` and passed along. It imports no plugin code; a bad manifest becomes a plugin
with a state and a reason, never a crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmtune.errors import LlmtuneError, ManifestError, NameConflict, PluginFailed, UnknownName, did_you_mean
from llmtune.plugins.entry_points import EntryPoint, installed_entry_points
from llmtune.plugins.manifest import KINDS, Facts, Manifest, read_manifest

BUILTIN = "llmtune.builtin"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One plugin as its manifest and its distribution describe it."""

    name: str
    dist: str
    version: str
    manifest_path: Path | None = None
    manifest: Manifest = field(default_factory=Manifest)
    state: str = "ok"
    """ok, broken or disabled."""
    reason: str = ""
    fix: str = ""
    local: Any = None
    """The plugin object itself for one that was registered by --custom_register_path."""

    def __str__(self) -> str:
        return f"{self.name} ({self.dist} {self.version})" if self.dist != self.name else self.name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name of one kind, with its facts and its owner."""

    kind: str
    name: str
    facts: Facts
    plugin: Plugin

    @property
    def qualified(self) -> str:
        return f"{self.plugin.name}::{self.name}"


@dataclass(frozen=True)
class Catalogue:
    """All plugins and an index of their names."""

    plugins: tuple[Plugin, ...]
    _index: dict[str, dict[str, list[Entry]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        for plugin in self.plugins:
            if plugin.state != "ok":
                continue
            for entry in _entries(plugin):
                for name in {entry.name, *entry.facts.get("aliases", ())}:
                    index[entry.kind].setdefault(name, []).append(entry)
        object.__setattr__(self, "_index", index)

    def names(self, kind: str) -> list[str]:
        return sorted(self._index[kind])

    def entries(self, kind: str) -> list[Entry]:
        """Every row of `kind` by name, conflicting claims included, aliases once."""
        return [entry for name, owners in sorted(self._index[kind].items()) for entry in owners if entry.name == name]

    def plugin(self, name: str) -> Plugin:
        """Return the plugin called `name` (its entry-point name or its distribution)."""
        for plugin in self.plugins:
            if name in (plugin.name, plugin.dist):
                return plugin
        known = [plugin.name for plugin in self.plugins]
        raise UnknownName(
            f"no plugin {name!r} is installed", fix=did_you_mean(name, known) or "llmtune plugins lists them"
        )

    def find(self, kind: str, name: str) -> Entry:
        """Return the one entry called `name` or `owner::name`; raise `UnknownName` or `NameConflict`."""
        owner, _, bare = name.rpartition("::")
        claims = self._index[kind].get(bare, [])
        if owner:
            claims = [claim for claim in claims if owner in (claim.plugin.name, claim.plugin.dist)]
        local = [claim for claim in claims if claim.plugin.local is not None]
        claims = local[-1:] or claims
        if not claims:
            raise self._unknown(kind, name, owner, bare)
        if len(claims) > 1:
            raise NameConflict(
                f"{kind} {bare!r} is claimed by {' and '.join(str(claim.plugin) for claim in claims)}",
                fix=f"write {' or '.join(claim.qualified for claim in claims)}, or disable one with -p no:NAME",
            )
        return claims[0]

    def get(self, kind: str, name: str) -> Entry | None:
        """Like `find`, but None when the name is unknown (a conflict still raises)."""
        return self.find(kind, name) if name in self._index[kind] else None

    def owners(self, kind: str, name: str) -> list[Plugin]:
        """Return the plugins that claim `name`."""
        return [claim.plugin for claim in self._index[kind].get(name, [])]

    def conflicts(self) -> Iterator[tuple[str, str, list[Entry]]]:
        """Yield (kind, name, claims) for names with more than one installed owner."""
        for kind, names in self._index.items():
            for name, claims in sorted(item for item in names.items() if len(item[1]) > 1):
                owners = {claim.plugin.name for claim in claims if claim.plugin.local is None}
                if len(owners) > 1:
                    yield kind, name, claims

    def with_plugin(self, plugin: Plugin) -> Catalogue:
        return Catalogue((*self.plugins, plugin))

    def _unknown(self, kind: str, name: str, owner: str, bare: str) -> LlmtuneError:
        for plugin in self.plugins:
            if plugin.state == "broken" and owner in (plugin.name, plugin.dist):
                return broken(plugin)
        dist = known_elsewhere(kind, bare)
        if dist:
            hidden = next((plugin for plugin in self.plugins if plugin.dist == dist), None)
            if hidden and hidden.state == "broken":
                return broken(hidden)
            if hidden and hidden.state == "disabled":
                return UnknownName(f"{kind} {bare!r} belongs to {hidden}, which is disabled", fix=hidden.reason)
            return UnknownName(
                f"{kind} {name!r} is provided by {dist}, which is not installed", fix=f"pip install {dist}"
            )
        names = self.names(kind)
        if kind in _LISTING:
            known = f"llmtune {_LISTING[kind]} lists what is installed"
        else:
            known = f"installed: {', '.join(names) or 'none'}"
        return UnknownName(f"unknown {kind} {name!r}", fix=did_you_mean(bare, names) or known)


_LISTING = {kind: f"{kind}s" for kind in ("model", "dataset", "template", "tuner", "engine", "hub")}
_LISTING |= {"tools_prompt": "tools-prompts", "loss_scale": "loss-scales", "quantizer": "tuners"}


def _entries(plugin: Plugin) -> Iterator[Entry]:
    for kind, rows in plugin.manifest.tables.items():
        for name, facts in rows.items():
            yield Entry(kind=kind, name=name, facts=facts, plugin=plugin)


def discover(
    *,
    only: frozenset[str] = frozenset(),
    disabled: frozenset[str] = frozenset(),
    entry_points: Iterable[EntryPoint] | None = None,
) -> Catalogue:
    """Read the manifests of all installed plugins, core's own first, the others by name.

    `only` (when not empty) and `disabled` are the user's switches; both name plugins.
    """
    found = installed_entry_points() if entry_points is None else entry_points
    plugins = [_read(point) for point in sorted(found, key=lambda point: (point.name, point.dist))]
    switched = [_switch(plugin, only, disabled) for plugin in _told_apart(plugins)]
    return Catalogue((_builtin(), *switched))


def _told_apart(plugins: Iterable[Plugin]) -> Iterator[Plugin]:
    """Plugins are known by name: of two distributions with one name, the second is broken."""
    seen: dict[str, Plugin] = {}
    for plugin in plugins:
        first = seen.setdefault(plugin.name, plugin)
        reason = f"{first.dist} has a plugin of the same name"
        yield (
            plugin
            if first is plugin
            else replace(plugin, state="broken", reason=reason, fix=f"pip uninstall {plugin.dist}")
        )


def _read(point: EntryPoint) -> Plugin:
    plugin = Plugin(name=point.name, dist=point.dist, version=point.version)
    try:
        path = point.manifest_path()
        return replace(plugin, manifest_path=path, manifest=read_manifest(path))
    except ManifestError as error:
        return replace(plugin, state="broken", reason=error.problem, fix=error.fix)


def _switch(plugin: Plugin, only: frozenset[str], disabled: frozenset[str]) -> Plugin:
    if plugin.name in disabled:
        return replace(plugin, state="disabled", reason="switched off by -p no:NAME or LLMTUNE_DISABLE_PLUGINS")
    if only and plugin.name not in only:
        return replace(plugin, state="disabled", reason="not in LLMTUNE_ONLY_PLUGINS")
    return plugin


def _builtin() -> Plugin:
    from llmtune import __version__

    path = Path(__file__).parent.parent / "llmtune-plugin.toml"
    return Plugin(name=BUILTIN, dist="llmtune", version=__version__, manifest_path=path, manifest=read_manifest(path))


def broken(plugin: Plugin) -> PluginFailed:
    """The error for using a plugin whose manifest is broken."""
    return PluginFailed(
        f"plugin {plugin} cannot be used: {plugin.reason}",
        fix=plugin.fix or f"llmtune plugins doctor {plugin.name}",
    )


def known_elsewhere(kind: str, name: str) -> str | None:
    """Return the distribution that is known to provide `name`, installed or not."""
    return _directory(kind).get(name)


def known_names(kind: str) -> list[str]:
    """Return the names that llmtune's own plugins provide, installed or not."""
    return list(_directory(kind))


def _directory(kind: str) -> Mapping[str, str]:
    """Return name -> distribution, generated from the manifests of this repository (`nox -s generate`)."""
    path = Path(__file__).parent / "directory.json"
    directory: Mapping[str, Mapping[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return directory.get(kind, {})
