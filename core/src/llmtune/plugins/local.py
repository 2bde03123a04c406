"""Local plugins: names that a Python file of the user registers (`--custom_register_path`), or a script.

The file runs at once under a unique module name; what its calls of `registration.py` add becomes a
plugin of the catalogue, together with the `hookimpl` functions in the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmtune.errors import LlmtuneError, ManifestError, PluginFailed, UsageError
from llmtune.paths import user_path
from llmtune.plugins.catalogue import Catalogue, Plugin
from llmtune.plugins.local_hooks import hooks_of
from llmtune.plugins.manifest import API, check_facts, is_fact, parse_manifest, read_manifest

Tables = dict[str, dict[str, dict[str, Any]]]


class LocalPlugin:
    """What one file, or this process, registered: rows for the catalogue and the functions behind them."""

    def __init__(self, *, replaces: bool = False) -> None:
        self.tables: Tables = {}
        self.functions: dict[tuple[str, str], Callable[..., Any]] = {}
        self.announced: set[str] = set()
        """Notes about hidden names that were printed already."""
        self._replaces = replaces

    def add(self, kind: str, name: str, facts: Mapping[str, Any], function: Callable[..., Any] | None = None) -> None:
        """Add a row; a name that is there already is replaced or an error. What is wrong changes nothing."""
        row = {str(key): value for key, value in facts.items() if value is not None}
        _check_row(kind, name, row)
        rows = self.tables.setdefault(kind, {})
        if name in rows and not self._replaces:
            raise UsageError(f"{kind} {name!r} is registered twice in the same file")
        self.remove(kind, name)
        rows[name] = row
        if function is not None:
            self.functions[kind, name] = function

    def remove(self, kind: str, name: str) -> None:
        """Forget a name; one that is not there is no error."""
        self.tables.get(kind, {}).pop(name, None)
        self.functions.pop((kind, name), None)

    def as_plugin(self, *, name: str, dist: str, place: str, summary: str) -> Plugin:
        """Return what is registered now; later registrations do not change it."""
        tables = {kind: dict(rows) for kind, rows in self.tables.items()}
        manifest = replace(parse_manifest({"api": API, "summary": summary}), tables=tables)
        return Plugin(name=name, dist=dist, version=place, manifest=manifest, local=hooks_of(dict(self.functions)))


def _check_row(kind: str, name: str, row: Mapping[str, Any]) -> None:
    """Hold a row to the manifest's rules; models and datasets may carry further annotations, as in SWIFT."""
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"a {kind} is registered by its name, found {reprlib.repr(name)}", fix="give a text first")
    if kind in ("model", "dataset"):
        row = {key: value for key, value in row.items() if is_fact(kind, key, value)}
    try:
        check_facts(kind, name, row)
    except ManifestError as error:
        fix = error.fix or f"the facts are those of [{kind}.NAME] in a plugin's manifest"
        raise UsageError(error.problem, fix=fix) from error


# --- where a registration goes --------------------------------------------------------------------

# SWIFT's register_model(...) takes no catalogue, and the sft_main(...) of the same script takes none
# either: what a script or a notebook registers can only meet its use in the process. Nothing else is
# kept there, and every catalogue takes a copy of it (`with_session`).
_session = LocalPlugin(replaces=True)
_collecting: ContextVar[LocalPlugin] = ContextVar("_collecting", default=_session)
_SESSION = "Python"


def current() -> LocalPlugin:
    """Return the plugin of the file that is running, else that of the process."""
    return _collecting.get()


@contextmanager
def _collect(plugin: LocalPlugin) -> Iterator[None]:
    token = _collecting.set(plugin)
    try:
        yield
    finally:
        _collecting.reset(token)


def with_session(catalogue: Catalogue) -> Catalogue:
    """Return the catalogue with what this process has registered until now, in front of the files' plugins."""
    installed = Catalogue(tuple(plugin for plugin in catalogue.plugins if plugin.local is None))
    files = [plugin for plugin in catalogue.plugins if plugin.local is not None and plugin.dist != _SESSION]
    if not any(_session.tables.values()):
        return Catalogue((*installed.plugins, *files))
    name, place = _script()
    plugin = _session.as_plugin(name=f"local-{name}", dist=_SESSION, place=place, summary=f"registered by {place}")
    plugin = _named_apart(plugin, Catalogue((*installed.plugins, *files)))
    _announce(line for line in _shadowed(plugin, installed) if line not in _session.announced)
    _session.announced.update(_shadowed(plugin, installed))
    return Catalogue((*installed.plugins, plugin, *files))


def _script() -> tuple[str, str]:
    """Return the name and the path of the script that is running; a notebook has none."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return (Path(file).stem, str(Path(file).resolve())) if file else ("session", "this Python session")


# --- reading files --------------------------------------------------------------------------------


def add_local_plugins(catalogue: Catalogue, paths: Sequence[str]) -> Catalogue:
    """Return the catalogue with the names that each path registers; they win over installed ones."""
    for text in paths:
        path = user_path(text).resolve()
        plugin = _named_apart(_from_folder(path) if os.path.isdir(path) else _from_file(path), catalogue)
        _announce(_shadowed(plugin, catalogue))
        catalogue = catalogue.with_plugin(plugin)
    return catalogue


def _named_apart(plugin: Plugin, catalogue: Catalogue) -> Plugin:
    """Number the plugins of files that are called the same."""
    taken = {other.name for other in catalogue.plugins}
    names = (plugin.name, *(f"{plugin.name}-{number}" for number in range(2, len(taken) + 3)))
    return replace(plugin, name=next(name for name in names if name not in taken))


def _from_file(path: Path) -> Plugin:
    if not os.path.isfile(path):
        raise UsageError(f"--custom_register_path {path}: no such file")
    collected = LocalPlugin()
    module = _run_file(path, collected)
    plugin = collected.as_plugin(
        name=f"local-{path.stem}", dist="local file", place=str(path), summary=f"registered by {path.name}"
    )
    return replace(plugin, local=_merge(plugin.local, module))


def _from_folder(folder: Path) -> Plugin:
    try:
        manifest = read_manifest(folder / "llmtune-plugin.toml")
    except ManifestError as error:
        raise UsageError(f"--custom_register_path {folder}: {error.problem}", fix=error.fix) from error
    name = (manifest.module or "").partition(".")[0]
    if name and str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    try:
        module = importlib.import_module(manifest.module) if manifest.module else object()
    except (Exception, SystemExit) as error:
        problem = f"--custom_register_path {folder}: {manifest.module} failed: {type(error).__name__}: {error}"
        raise PluginFailed(problem, fix="mend the module and run again") from error
    return Plugin(
        name=f"local-{folder.name}",
        dist="local folder",
        version=str(folder),
        manifest_path=folder / "llmtune-plugin.toml",
        manifest=manifest,
        local=module,
    )


def _run_file(path: Path, collected: LocalPlugin) -> Any:
    name = f"_llmtune_local_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--custom_register_path {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _collect(collected):
        try:
            spec.loader.exec_module(module)
        except LlmtuneError as error:
            error.problem = f"{path}{_line_in(path, error)}: {error.problem}"
            raise
        except (Exception, SystemExit) as error:
            line = _line_in(path, error)
            raise PluginFailed(
                f"{path}{line} failed: {type(error).__name__}: {error}", fix="mend the file and run again"
            ) from error
    return module


def _line_in(path: Path, error: BaseException) -> str:
    frames = (
        [frame for frame in inspect.getinnerframes(error.__traceback__) if frame.filename == str(path)]
        if error.__traceback__
        else []
    )
    return f":{frames[-1].lineno}" if frames else ""


def _merge(hooks: Any, module: Any) -> Any:
    """Add the file's own `hookimpl` functions to the hooks built from its registrations."""
    for name, value in vars(module).items():
        if name.startswith("llmtune_") and callable(value) and hasattr(value, "llmtune_impl"):
            setattr(hooks, name, value)
    return hooks


def _announce(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _shadowed(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    for kind, rows in plugin.manifest.tables.items():
        for name in rows:
            owners = catalogue.owners(kind, name)
            if owners:
                yield f"note: {kind} {name!r} of {plugin.name} is used instead of that of {', '.join(map(str, owners))}"
