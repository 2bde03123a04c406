import pytest

from llmtune.config.build import options_class
from llmtune.config.commands import COMMANDS
from llmtune.config.source import OPTION_KINDS, field_names, option_names, plugin_flags, section_flags
from llmtune.plugins.catalogue import discover
from llmtune.plugins.manifest import KINDS

INSTALLED = [entry for kind in KINDS for entry in discover().entries(kind) if "options" in entry.facts]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_names_read_from_source_are_those_of_the_sections(command):
    sections = [field.get_default(call_default_factory=True) for field in COMMANDS[command].model_fields.values()]
    expected = [name for section in sections for name in type(section).model_fields]
    assert section_flags(command) == expected
    assert len(expected) == len(set(expected)), "two sections of a command share a flag"


@pytest.mark.parametrize("entry", INSTALLED, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_names_read_from_source_are_those_of_the_options_of_each_installed_plugin(entry):
    assert option_names(entry) == list(options_class(entry).model_fields)


def test_every_command_with_a_configuration_says_which_plugins_add_flags():
    assert set(OPTION_KINDS) == set(COMMANDS)


def test_fields_of_bases_in_the_same_file_come_first_and_private_ones_are_left_out(tmp_path):
    path = tmp_path / "options.py"
    path.write_text("class A:\n    a: int = 1\n    _p: int = 2\nclass B(A):\n    b: int\n    a: str\n    c = 3\n")
    assert field_names(path, "B") == ["a", "b"]
    assert field_names(path, "Missing") == []


def install_tuner(site, name, options):
    manifest = f'[tuner.{name}]\noptions = "llmtune_plugin_{name}.options:Options"\n'
    site.install(name, manifest, files={"options.py": options})


def test_flags_of_plugins_come_with_their_owner_and_without_importing_it(site):
    install_tuner(site, "acme", "raise SystemExit\nclass Options(Section):\n    acme_rank: int = 8\n")
    found = [(flag, entry.qualified) for flag, entry in plugin_flags("sft", site.catalogue())]
    assert found == [("acme_rank", "acme::acme")]
    assert list(plugin_flags("inspect", site.catalogue())) == []


@pytest.mark.parametrize("options", ["class Options(:\n", "# \udcff"], ids=["syntax", "bytes"])
def test_a_broken_options_file_hides_only_its_own_flags(site, options):
    install_tuner(site, "beta", "class Options:\n    fine: int\n")
    install_tuner(site, "acme", "")
    path = site.folder / "llmtune_plugin_acme/options.py"
    path.write_bytes(options.encode("utf-8", "surrogateescape"))
    assert [flag for flag, _ in plugin_flags("sft", site.catalogue())] == ["fine"]


def test_a_missing_options_file_hides_only_its_own_flags(site):
    site.install("acme", '[tuner.t]\noptions = "llmtune_plugin_acme.options:Options"\n')
    assert list(plugin_flags("sft", site.catalogue())) == []


def test_a_local_plugin_hands_over_the_class_itself(local):
    catalogue = local(
        "from llmtune import register_tuner\nfrom llmtune.api import Section\n"
        "class Mine(Section):\n    'Mine'\n    my_rank: int = 8\n"
        "register_tuner('t', print, options=Mine)\n"
    )
    assert option_names(catalogue.find("tuner", "t")) == ["my_rank"]
