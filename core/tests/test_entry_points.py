import os
import subprocess
import sys
from importlib import metadata

import pytest

from llmtune.errors import ManifestError
from llmtune.plugins.entry_points import GROUP, EntryPoint, installed_entry_points


def names(*folders):
    return [point.name for point in installed_entry_points([str(folder) for folder in folders])]


def test_the_installed_plugins_are_those_that_importlib_metadata_sees():
    expected = {(point.name, point.value, point.dist.version) for point in metadata.entry_points(group=GROUP)}
    assert {(point.name, point.value, point.version) for point in installed_entry_points()} == expected
    assert expected


def test_name_value_dist_and_version_come_from_the_dist_info(site):
    site.install("acme", dist="Llmtune_Plugin.Acme", version="2.1")
    assert list(installed_entry_points([str(site.folder)])) == [
        EntryPoint(
            name="acme", value="llmtune_plugin_acme:llmtune-plugin.toml", dist="llmtune-plugin-acme", version="2.1"
        )
    ]


def test_other_groups_and_distributions_without_entry_points_are_left_out(site):
    site.install("acme")
    (site.folder / "other-1.0.dist-info").mkdir()
    assert names(site.folder) == ["acme"]


def test_comments_are_no_entry_points(site):
    site.install("acme")
    with (site.folder / "llmtune_plugin_acme-1.0.dist-info/entry_points.txt").open("a") as file:
        file.write("# old = gone:llmtune-plugin.toml\n")
    assert names(site.folder) == ["acme"]


def test_a_distribution_found_twice_counts_where_it_comes_first(site, tmp_path):
    site.install("acme", version="2.0")
    older = tmp_path / "older" / "llmtune_plugin_acme-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "entry_points.txt").write_text("[llmtune.plugins]\nacme = a:b.toml\n")
    found = installed_entry_points([str(site.folder), str(older.parent)])
    assert [point.version for point in found] == ["2.0"]


@pytest.mark.parametrize("spelling", ["", ".", "absolute", "absolute/"])
def test_the_working_directory_is_skipped_however_it_is_spelt(site, monkeypatch, spelling):
    site.install("acme")
    monkeypatch.chdir(site.folder)
    assert names(spelling.replace("absolute", os.getcwd())) == []


def test_python_dash_m_imports_nothing_from_the_working_directory(tmp_path):
    for module in ("dataclasses", "json", "tomllib"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('picked up from the working directory')")
    command = [sys.executable, "-m", "llmtune", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_not_there_or_an_egg_file_is_no_error(tmp_path):
    (tmp_path / "old-1.0-py3.11.egg-info").write_text("Metadata-Version: 1.0")
    assert names(tmp_path, tmp_path / "missing") == []


def test_an_unreadable_entry_points_file_hides_only_its_own_distribution(site):
    site.install("acme")
    broken = site.folder / "aaa-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_bytes(b"[llmtune.plugins]\nname = \xff\n")
    assert names(site.folder) == ["acme"]


def test_finding_plugins_and_their_manifests_imports_none_of_them(site):
    site.install("acme", 'module = "llmtune_plugin_acme.plugin"', code="raise SystemExit('imported')")
    (point,) = installed_entry_points([str(site.folder)])
    assert point.manifest_path() == site.folder / "llmtune_plugin_acme/llmtune-plugin.toml"
    assert not [name for name in sys.modules if name.startswith("llmtune_plugin_acme")]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("llmtune_plugin_acme", "module:file.toml"),
        ("llmtune_plugin_acme.sub:x.toml", "module:file.toml"),
        (":x.toml", "module:file.toml"),
        ("no_such_package_here:x.toml", "no_such_package_here of the entry point is not installed"),
        ("difflib:x.toml", "difflib of the entry point is not installed"),
    ],
)
def test_a_value_that_points_nowhere_is_a_manifest_error(value, named, fails):
    point = EntryPoint(name="acme", value=value, dist="d", version="1")
    assert named in fails(ManifestError, point.manifest_path).problem
