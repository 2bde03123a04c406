"""The packages of this repository: each is checked by its own tests, and names are unique among all."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmtune.plugins.catalogue import discover

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "core", *sorted(path.parent for path in ROOT.glob("plugins*/*/pyproject.toml"))]


def test_the_wheel_of_core_holds_its_manifest_and_type_marker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PACKAGES[0], check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert sum(name.endswith("/llmtune-plugin.toml") for name in names) == 1
    assert sum(name.endswith("/py.typed") for name in names) == 1


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_has_a_type_marker_beside_its_manifest(package: Path) -> None:
    (manifest,) = package.glob("src/*/llmtune-plugin.toml")
    assert (manifest.parent / "py.typed").is_file()


def test_every_plugin_is_checked_by_tests_of_its_own() -> None:
    """`ManifestTests` validates a plugin and looks into its wheel."""
    unchecked = [
        package.name
        for package in PACKAGES[1:]
        if not any("ManifestTests" in path.read_text(encoding="utf-8") for path in package.glob("tests/test_*.py"))
    ]
    assert unchecked == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_has_readme_and_changelog(package: Path) -> None:
    assert (package / "README.md").stat().st_size > 100
    assert "0.1.0" in (package / "CHANGELOG.md").read_text()


def test_no_name_is_claimed_twice() -> None:
    assert list(discover().conflicts()) == []


def test_a_plugin_imports_nothing_of_llmtune_but_the_api() -> None:
    """The contract is `llmtune.api`; whatever else a plugin imports can change without notice."""
    wrong = []
    for path in ROOT.glob("plugins*/*/src/**/*.py"):
        own = path.relative_to(ROOT).parts[3]
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("llmtune") and words[1].split(".")[0] != own:
                wrong += [f"{path.relative_to(ROOT)}: {line}"] if words[1] != "llmtune.api" else []
    assert wrong == []
