"""Fixtures of core's tests: plugins installed into a folder of the test, a tiny tokenizer, local files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmtune.errors import LlmtuneError
from llmtune.plugins import local as local_plugins
from llmtune.plugins.catalogue import Catalogue, discover
from llmtune.plugins.entry_points import EntryPoint
from llmtune.plugins.local import add_local_plugins
from llmtune.specs import RunContext, RunPlan, TemplateSpec

VARIABLES = ("LLMTUNE_HUB", "LLMTUNE_ONLY_PLUGINS", "LLMTUNE_DISABLE_PLUGINS", "LLMTUNE_PLUGIN_TRACE", "USE_HF")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No switch of the caller's shell reaches a test, and nothing is written outside of tmp_path."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


class Site:
    """A folder on `sys.path` into which plugins are installed as pip would do it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: list[EntryPoint] = []

    def install(self, name, manifest="", *, code=None, dist=None, version="1.0", files=None, value=None) -> EntryPoint:
        """Write package `llmtune_plugin_NAME` with its manifest, `plugin.py` and dist-info."""
        dist = dist or f"llmtune-plugin-{name}"
        module = "llmtune_plugin_" + name.replace("-", "_")
        package = self.folder / module
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text('"""A plugin."""\n')
        (package / "llmtune-plugin.toml").write_text(f"api = 1\n{manifest}" if "api =" not in manifest else manifest)
        if code is not None:
            (package / "plugin.py").write_text(code)
        for filename, text in (files or {}).items():
            (package / filename).write_text(text)
        value = f"{module}:llmtune-plugin.toml" if value is None else value
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[llmtune.plugins]\n{name} = {value}\n")
        self.points.append(EntryPoint(name=name, value=value, dist=dist, version=version))
        return self.points[-1]

    def catalogue(self, **switches) -> Catalogue:
        return discover(entry_points=self.points, **switches)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for module in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.fixture
def local(tmp_path, site):
    """Register a file's text on top of the installed plugins: `local("register_dataset(...)")`."""

    def register(text: str, name: str = "mine.py", catalogue: Catalogue | None = None) -> Catalogue:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return add_local_plugins(catalogue or site.catalogue(), [str(path)])

    before = set(sys.modules)
    yield register
    for module in set(sys.modules) - before:
        if module.startswith("_llmtune_local_"):
            del sys.modules[module]


@pytest.fixture
def run_context():
    return RunContext(plan=RunPlan(command="sft"))


@pytest.fixture(scope="session")
def tokenizer():
    from llmtune.testing.tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture
def chatml():
    """Build a ChatML spec, with parts replaced by keyword."""

    def build(**parts) -> TemplateSpec:
        return TemplateSpec(
            **{
                "name": "chatml",
                "system_prefix": ["<|im_start|>system\n{{SYSTEM}}<|im_end|>\n"],
                "prompt": ["<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n"],
                "chat_sep": ["<|im_end|>\n"],
                "suffix": ["<|im_end|>\n"],
                "stop_words": ["<|im_end|>"],
                **parts,
            }
        )

    return build


@pytest.fixture
def jsonl(tmp_path):
    """Write records as JSON Lines and return the path."""

    def write(name: str, records) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
        return path

    return write


@pytest.fixture
def fails():
    """Return the error that a call raises; its class must be exactly the one named."""

    def call(kind: type[LlmtuneError], function, *arguments, **keywords) -> LlmtuneError:
        with pytest.raises(kind) as caught:
            function(*arguments, **keywords)
        assert type(caught.value) is kind
        return caught.value

    return call


@pytest.fixture
def fresh_process(monkeypatch):
    """Nothing that a test registers reaches another; only core's own plugin is switched on."""
    monkeypatch.setenv("LLMTUNE_ONLY_PLUGINS", "none-but-core")
    yield
    session = local_plugins._session
    session.tables.clear()
    session.functions.clear()
    session.announced.clear()
