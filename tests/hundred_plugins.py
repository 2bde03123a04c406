"""Write 100 installed plugins into a folder: 93 that work and 7 that are broken in six ways.

The files are those that pip writes for a wheel, so a folder on `sys.path` holds installed plugins.
"""

from __future__ import annotations

from pathlib import Path

GOOD = 93

_MANIFEST = """\
api = {api}
summary = "Generated plugin {name}"
module = "{module}.plugin"

[model.{name}]
template = "chatml"
tuner.target_modules = ["q_proj", "k_proj", "v_proj"]
requires = ["transformers>=4.37"]
[model.{name}.ids]
{ids}

[tuner.{tuner}]
summary = "Does nothing"
options = "{module}.options:Options"
"""
_OPTIONS = """\
from llmtune.api import Section
from pydantic import Field


class Options(Section):
    \"\"\"{name}\"\"\"

    {flag}: int = Field(1, description="A generated flag.")
"""
_PLUGIN = """\
from llmtune.api import hookimpl


@hookimpl
def llmtune_create_tuner(name, options, run):
    return None
"""


def write_plugins(site: Path) -> list[str]:
    """Write the packages and their metadata into `site`; return the names of the broken plugins."""
    for number in range(GOOD):
        _write(site, f"good-{number:02}")
    _write(site, "fails-on-import", plugin="import a_module_that_nobody_has\n" + _PLUGIN)
    _write(site, "raises-on-import", plugin="1 / 0\n" + _PLUGIN)
    _write(site, "imports-torch", plugin="import torch\n" + _PLUGIN)
    _write(site, "broken-manifest", manifest="api = 1\n[model.half\n")
    _write(site, "newer-api", api=99)
    _write(site, "claims-first", tuner="claimed-twice")
    _write(site, "claims-second", tuner="claimed-twice")
    return [
        "fails-on-import",
        "raises-on-import",
        "imports-torch",
        "broken-manifest",
        "newer-api",
        "claims-first",
        "claims-second",
    ]


def _write(
    site: Path, name: str, *, api: int = 1, tuner: str | None = None, plugin: str = _PLUGIN, manifest: str | None = None
) -> None:
    module = f"llmtune_plugin_{name.replace('-', '_')}"
    package = site / module
    package.mkdir(parents=True)
    ids = "\n".join(
        f'"{name}-{size}b" = {{ ms = "org/{name}-{size}B", hf = "org/{name}-{size}B" }}' for size in range(10)
    )
    text = manifest or _MANIFEST.format(api=api, name=name, module=module, ids=ids, tuner=tuner or f"{name}-tuner")
    files = {
        "__init__.py": f'"""Generated plugin {name}."""\n',
        "llmtune-plugin.toml": text,
        "plugin.py": plugin,
        "options.py": _OPTIONS.format(name=name, flag=name.replace("-", "_") + "_flag"),
    }
    for filename, content in files.items():
        (package / filename).write_text(content, encoding="utf-8")
    metadata = site / f"{module}-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.2.3\n")
    (metadata / "entry_points.txt").write_text(f"[llmtune.plugins]\n{name} = {module}:llmtune-plugin.toml\n")
