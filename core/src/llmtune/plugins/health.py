"""What is wrong with a plugin: seen in its manifest, remembered from the doctor, or found by importing it.

The catalogue imports nothing, so a module that fails on import looks fine there. The doctor imports
each plugin in a process of its own and its findings are remembered until the plugin's files change.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from llmtune.plugins.catalogue import BUILTIN, Catalogue, Plugin

HEAVY = ("torch", "transformers", "datasets", "peft", "vllm")
_SECONDS = 120
_PROBE = """
import importlib, json, sys, traceback
sys.path[:0] = json.loads(sys.argv[2])
try:
    module = importlib.import_module(sys.argv[1])
    import pluggy
    from llmtune import hookspecs
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    result = {"heavy": [name for name in json.loads(sys.argv[3]) if name in sys.modules]}
except BaseException as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    result = {"error": f"{type(error).__name__}: {error}", "where": f"{frame.filename}:{frame.lineno}"}
print("\\n" + json.dumps(result))
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """State of one plugin: ok, disabled, broken, conflict, or slow."""

    state: str
    reason: str = ""
    fix: str = ""

    def lines(self) -> list[str]:
        return [line for line in (*self.reason.splitlines(), self.fix) if line]


OK = Finding(state="ok")


def state_of(plugin: Plugin, catalogue: Catalogue, memory: Mapping[str, Finding]) -> Finding:
    """Return what is known about `plugin` without importing it."""
    if plugin.state != "ok":
        return _given_up(plugin)
    static = _static_problem(plugin)
    return memory.get(_key(plugin)) or static or _conflict(plugin, catalogue) or OK


def _given_up(plugin: Plugin) -> Finding:
    fix = _reinstall(plugin) if plugin.state == "broken" else ""
    return Finding(state=plugin.state, reason=plugin.reason, fix=plugin.fix or fix)


def _conflict(plugin: Plugin, catalogue: Catalogue) -> Finding | None:
    lines = []
    for kind, name, claims in catalogue.conflicts():
        owners = [claim.plugin for claim in claims]
        if plugin in owners:
            others = ", ".join(str(owner) for owner in owners if owner is not plugin)
            lines.append(f"{kind} {name!r} is also claimed by {others}")
    fix = f"write {plugin.name}::NAME to mean this one, or -p no:{plugin.name}"
    return Finding(state="conflict", reason="\n".join(lines), fix=fix) if lines else None


def _static_problem(plugin: Plugin) -> Finding | None:
    """Find heavy imports at module level by reading the source."""
    path = module_path(plugin)
    if path is None:
        return None
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return Finding(
            state="broken",
            reason=f"its module {plugin.manifest.module} cannot be read: {error}",
            fix=_reinstall(plugin),
        )
    missing = [name for name in _imported(source) if not _is_installed(name)]
    if missing:
        reason = f"{plugin.manifest.module} imports {', '.join(missing)}, which is not installed"
        return Finding(state="broken", reason=reason, fix=f"pip install {plugin.dist} again, or ask its author")
    heavy = heavy_imports(source)
    return _slow(plugin, heavy) if heavy else None


def _imported(source: str) -> list[str]:
    """Return the top-level packages that `source` imports at module level, the standard library left out."""
    found = re.findall(r"^(?:import|from)[ \t]+(\w+)", source, re.MULTILINE)
    return sorted({name for name in found if name not in sys.stdlib_module_names})


@cache
def _is_installed(name: str) -> bool:
    """Whether a top-level package can be found; it is not imported."""
    return importlib.util.find_spec(name) is not None


def heavy_imports(source: str) -> list[str]:
    """Return the heavy libraries that `source` imports at module level."""
    if not any(name in source for name in HEAVY):
        return []
    return sorted(set(re.findall(rf"^(?:import|from)\s+({'|'.join(HEAVY)})\b", source, re.MULTILINE)))


def _slow(plugin: Plugin, heavy: list[str]) -> Finding:
    return Finding(
        state="slow",
        reason=f"{plugin.manifest.module} imports {', '.join(heavy)} at module level",
        fix="its author should move the import into a function or a _*.py module; it works meanwhile, slowly",
    )


def module_path(plugin: Plugin) -> Path | None:
    """Return the file of the plugin's module, None for pure data (and for local plugins)."""
    if plugin.manifest.module is None or plugin.manifest_path is None or plugin.name == BUILTIN:
        return None
    inside = plugin.manifest.module.split(".")[1:] or ["__init__"]
    return plugin.manifest_path.parent.joinpath(*inside).with_suffix(".py")


def _reinstall(plugin: Plugin) -> str:
    return f"pip install --force-reinstall --no-deps {plugin.dist}"


def examine(plugin: Plugin, catalogue: Catalogue) -> Finding:
    """Import the plugin in a process of its own, and check its requirements and its names."""
    if plugin.state != "ok":
        return _given_up(plugin)
    from llmtune.plugins.requirements import missing_requirements

    requires = {
        text
        for rows in plugin.manifest.tables.values()
        for facts in rows.values()
        for text in facts.get("requires", ())
    }
    missing = missing_requirements(sorted(requires))
    if missing:
        listed = ", ".join(f"{text} ({found})" for text, found in missing)
        return Finding(
            state="broken", reason=f"needs {listed}", fix="pip install " + " ".join(f"'{text}'" for text, _ in missing)
        )
    module = plugin.manifest.module
    return (_import_problem(plugin, module) if module else None) or _conflict(plugin, catalogue) or OK


def _import_problem(plugin: Plugin, module: str) -> Finding | None:
    command = [sys.executable, "-c", _PROBE, module, json.dumps(sys.path), json.dumps(HEAVY)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        result = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Finding(state="broken", reason=f"importing {module} took more than {_SECONDS} s", fix=_reinstall(plugin))
    except (IndexError, ValueError):
        return Finding(
            state="broken",
            reason=f"importing {module} ended the process (code {done.returncode})",
            fix=_reinstall(plugin),
        )
    if "error" in result:
        return Finding(
            state="broken",
            reason=f"importing {module} failed: {result['error']}\nat {result['where']}",
            fix=_reinstall(plugin),
        )
    return _slow(plugin, result["heavy"]) if result["heavy"] and plugin.name != BUILTIN else None


# --- memory ---------------------------------------------------------------------------------------


def _key(plugin: Plugin) -> str:
    path = module_path(plugin)
    stamp = path.stat().st_mtime_ns if path is not None and path.exists() else 0
    return f"{plugin.dist} {plugin.version} {stamp}"


def remembered(path: Path) -> dict[str, Finding]:
    """Return the doctor's findings, kept in `path`, about plugins that were not ok."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {key: Finding(**finding) for key, finding in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(path: Path, findings: Iterable[tuple[Plugin, Finding]]) -> None:
    """Keep what is wrong in `path`, and forget what is fine again."""
    memory = remembered(path)
    for plugin, finding in findings:
        memory.pop(_key(plugin), None)
        if finding.state in ("broken", "slow"):
            memory[_key(plugin)] = finding
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({key: asdict(finding) for key, finding in memory.items()}, indent=1), encoding="utf-8"
        )
    except OSError as error:
        print(f"note: findings are not remembered: {error}", file=sys.stderr)
