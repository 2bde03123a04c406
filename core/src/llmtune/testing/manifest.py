"""What every plugin must hold: a valid manifest, cheap imports, hooks with the right arguments."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pluggy
import pytest

from llmtune import hookspecs
from llmtune.config.build import options_class
from llmtune.config.source import option_names
from llmtune.plugins.catalogue import Catalogue, Entry, Plugin, discover
from llmtune.plugins.health import HEAVY
from llmtune.plugins.manifest import read_manifest, tomllib
from llmtune.plugins.validate import validate_folder

_IMPORT = """
import importlib, json, sys
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""
_BUILD = """
import importlib, sys
module, _, attribute = sys.argv[1].partition(":")
backend = importlib.import_module(module)
(getattr(backend, attribute) if attribute else backend).build_wheel(sys.argv[2])
"""


class ManifestTests:
    """Checks one plugin. Give the fixture `manifest`; the plugin must be installed (editable will do)."""

    @pytest.fixture
    def manifest(self) -> Path:
        """The plugin's llmtune-plugin.toml in its source folder."""
        raise NotImplementedError("override the fixture `manifest`: return the path of your llmtune-plugin.toml")

    @pytest.fixture
    def project(self, manifest: Path) -> Path:
        """The folder with pyproject.toml; by default the nearest above the manifest."""
        found = next((folder for folder in manifest.resolve().parents if (folder / "pyproject.toml").is_file()), None)
        assert found is not None, f"no pyproject.toml above {manifest}: override the fixture `project`"
        return found

    @pytest.fixture
    def plugin(self, manifest: Path, project: Path) -> Plugin:
        """The plugin as the catalogue would read it."""
        return Plugin(
            name=project.name,
            dist=project.name,
            version="0",
            manifest_path=manifest.resolve(),
            manifest=read_manifest(manifest),
        )

    @pytest.fixture
    def modules(self, plugin: Plugin) -> list[str]:
        """The modules that llmtune imports by name: the one with the hooks, and those with options."""
        targets = [entry.facts["options"].partition(":")[0] for entry in entries(plugin) if "options" in entry.facts]
        return sorted({module for module in (plugin.manifest.module, *targets) if module is not None})

    def test_the_manifest_is_valid(self, project: Path) -> None:
        problems = validate_folder(project, discover())
        assert not problems, "\n".join([*problems, f"see all of this with: llmtune plugins validate {project}"])

    def test_the_plugin_is_installed_as_this_source(self, manifest: Path) -> None:
        installed = [plugin.manifest_path.resolve() for plugin in discover().plugins if plugin.manifest_path]
        assert manifest.resolve() in installed, (
            f"no installed plugin has the manifest {manifest.resolve()}: run pip install --editable on the "
            'project, and check [project.entry-points."llmtune.plugins"] in its pyproject.toml'
        )

    def test_option_names_can_be_read_without_importing(self, plugin: Plugin) -> None:
        for entry in entries(plugin):
            options = options_class(entry)
            if options is None:
                continue
            read, fields = option_names(entry), list(options.model_fields)
            assert read == fields, (
                f"{entry.facts['options']} has the fields {fields}, but its source reads as {read}: write every "
                "field in the class body as `name: type = Field(...)`, with its bases in the same file"
            )

    def test_every_option_says_what_it_does(self, plugin: Plugin) -> None:
        for entry in entries(plugin):
            options = options_class(entry)
            fields = options.model_fields if options is not None else {}
            silent = [name for name, field in fields.items() if not field.description]
            assert not silent, (
                f"options {', '.join(silent)} of {entry.kind} {entry.name} have no help text: "
                "add description= to their Field(...)"
            )

    def test_its_modules_import_without_heavy_packages(self, modules: list[str]) -> None:
        command = [sys.executable, "-c", _IMPORT, json.dumps(modules), json.dumps(HEAVY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\nimporting {modules} failed: mend the error above"
        heavy = json.loads(done.stdout.splitlines()[-1])
        assert not heavy, (
            f"importing {', '.join(modules)} imports {', '.join(heavy)}: move those imports into the hook "
            "functions or into _*.py modules that the hooks import"
        )

    def test_its_hooks_have_the_arguments_of_the_contract(self, plugin: Plugin) -> None:
        if plugin.manifest.module is None:
            return  # pure data
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        problem = None
        try:
            manager.register(importlib.import_module(plugin.manifest.module))
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            problem = error
        assert problem is None, f"{problem}\ncompare the names and arguments of your hooks with llmtune.hookspecs"

    def test_the_wheel_contains_the_manifest(self, manifest: Path, project: Path, tmp_path: Path) -> None:
        build = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
        command = [sys.executable, "-c", _BUILD, build["build-backend"], str(tmp_path)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\nbuilding the wheel failed: install {build['requires']}"
        names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
        wanted = f"{manifest.resolve().parent.name}/{manifest.name}"
        assert wanted in names, f"the wheel holds no {wanted}: list it under the wheel's files in pyproject.toml"


def entries(plugin: Plugin) -> list[Entry]:
    """Every name that the plugin adds."""
    alone = Catalogue((plugin,))
    return [entry for kind in plugin.manifest.tables for entry in alone.entries(kind)]
