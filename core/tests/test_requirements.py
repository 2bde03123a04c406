import pytest

from llmtune.errors import PluginFailed
from llmtune.plugins.requirements import check_requirements, missing_requirements


def test_what_is_installed_in_a_fitting_version_is_not_missing():
    assert missing_requirements(["pluggy>=1", "pydantic"]) == []


def test_what_is_missing_is_listed_with_what_was_found(site):
    site.install("acme", version="1.0")
    requires = ["llmtune-plugin-acme>=2", "no-such-dist-anywhere>=1"]
    assert missing_requirements(requires) == [(requires[0], "1.0 is installed"), (requires[1], "not installed")]


def test_a_prerelease_counts_as_installed(site):
    site.install("acme", version="2.0rc1")
    assert missing_requirements(["llmtune-plugin-acme>=1"]) == []


def test_a_requirement_for_another_platform_is_not_missing():
    assert missing_requirements(["no-such-dist-anywhere; python_version < '3'"]) == []


def test_the_error_names_the_entry_its_plugin_and_the_pip_command(site, fails):
    site.install("acme", '[engine.e]\nrequires = ["pluggy>=1", "no-such-dist-anywhere>=1"]\n')
    error = fails(PluginFailed, check_requirements, site.catalogue().find("engine", "e"))
    assert "engine 'e' of acme (llmtune-plugin-acme 1.0)" in error.problem
    assert error.fix == "pip install 'no-such-dist-anywhere>=1'"


@pytest.mark.parametrize("manifest", ["[engine.e]\n", '[engine.e]\nrequires = ["pluggy>=1"]\n'])
def test_an_entry_whose_requirements_are_met_passes(site, manifest):
    site.install("acme", manifest)
    check_requirements(site.catalogue().find("engine", "e"))
