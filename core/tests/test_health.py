import json
import os

import pytest

from llmtune.plugins.catalogue import BUILTIN
from llmtune.plugins.health import OK, Finding, examine, remember, remembered, state_of

MODULE = 'module = "llmtune_plugin_{}.plugin"\n'
HOOK = "from llmtune.api import hookimpl\n@hookimpl\ndef llmtune_create_tuner(name, options, run): pass\n"


@pytest.fixture
def plugin_with(site):
    """Install plugin `acme` with this code and return (plugin, catalogue)."""

    def install(code, manifest=""):
        site.install("acme", MODULE.format("acme") + manifest, code=code)
        catalogue = site.catalogue()
        return catalogue.plugin("acme"), catalogue

    return install


def test_a_sound_plugin_is_ok(plugin_with):
    plugin, catalogue = plugin_with(HOOK)
    assert (state_of(plugin, catalogue, {}), examine(plugin, catalogue)) == (OK, OK)


def test_core_itself_is_ok(site):
    catalogue = site.catalogue()
    assert examine(catalogue.plugin(BUILTIN), catalogue) == OK


def test_a_plugin_that_is_pure_data_is_ok(site):
    site.install("acme", "[tuner.t]\n")
    catalogue = site.catalogue()
    assert examine(catalogue.plugin("acme"), catalogue) == OK


def test_the_doctor_finds_an_import_error_with_its_place_and_the_pip_command(plugin_with):
    plugin, catalogue = plugin_with("x = 1\nimport no_such_module_anywhere\n")
    finding = examine(plugin, catalogue)
    assert finding.state == "broken"
    assert "No module named 'no_such_module_anywhere'" in finding.reason
    assert "llmtune_plugin_acme/plugin.py:2" in finding.reason
    assert finding.fix == "pip install --force-reinstall --no-deps llmtune-plugin-acme"


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os\nos._exit(3)"])
def test_the_doctor_survives_a_plugin_that_ends_the_process(plugin_with, code):
    finding = examine(*plugin_with(code))
    assert (finding.state, "3" in finding.reason) == ("broken", True)


def test_the_doctor_finds_a_hook_that_does_not_exist(plugin_with):
    finding = examine(*plugin_with(HOOK.replace("llmtune_create_tuner", "llmtune_create_toner")))
    assert (finding.state, "llmtune_create_toner" in finding.reason) == ("broken", True)


def test_the_doctor_finds_a_requirement_that_is_not_met(plugin_with):
    finding = examine(*plugin_with(HOOK, '[tuner.t]\nrequires = ["no-such-dist-anywhere>=1"]\n'))
    assert (finding.state, finding.fix) == ("broken", "pip install 'no-such-dist-anywhere>=1'")


def test_the_doctor_imports_nothing_into_this_process(plugin_with, capfd):
    examine(*plugin_with("print('imported')\n" + HOOK))
    assert capfd.readouterr().out == ""


def test_the_doctor_finds_a_heavy_import_wherever_it_happens(site):
    (site.folder / "vllm.py").write_text("")
    files = {"_hidden.py": "import vllm\n"}
    site.install("acme", MODULE.format("acme"), code="from llmtune_plugin_acme import _hidden\n", files=files)
    catalogue = site.catalogue()
    finding = examine(catalogue.plugin("acme"), catalogue)
    assert (finding.state, "vllm" in finding.reason) == ("slow", True)


@pytest.mark.parametrize("line", ["import torch", "from torch.nn import Linear", "import transformers as t"])
def test_a_heavy_import_at_module_level_is_found_without_importing(plugin_with, line):
    plugin, catalogue = plugin_with(f"{line}\nraise SystemExit('imported')\n")
    finding = state_of(plugin, catalogue, {})
    assert (finding.state, line.split()[1].split(".")[0] in finding.reason) == ("slow", True)


@pytest.mark.parametrize("line", ["def f():\n    import torch", "import torchless", "from datasets_of_mine import x"])
def test_an_import_in_a_function_or_of_another_name_is_not_heavy(plugin_with, line):
    assert state_of(*plugin_with(line), {}).state != "slow"


@pytest.mark.parametrize("line", ["import no_such_module_anywhere", "from no_such_module_anywhere.x import y"])
def test_an_import_of_what_is_not_installed_is_found_without_importing(plugin_with, line):
    finding = state_of(*plugin_with(f"import json\n{line}\n"), {})
    assert (finding.state, "no_such_module_anywhere, which is not installed" in finding.reason) == ("broken", True)


@pytest.mark.parametrize("line", ["try:\n    import no_such_module\nexcept ImportError:\n    pass", "import pluggy"])
def test_a_guarded_or_installed_import_is_fine(plugin_with, line):
    assert state_of(*plugin_with(line), {}) == OK


def test_a_module_that_is_not_there_is_broken(site):
    site.install("acme", MODULE.format("acme"))
    catalogue = site.catalogue()
    finding = state_of(catalogue.plugin("acme"), catalogue, {})
    assert (finding.state, "llmtune_plugin_acme.plugin" in finding.reason) == ("broken", True)


@pytest.mark.parametrize("look", [lambda *found: state_of(*found, {}), examine], ids=["list", "doctor"])
def test_a_name_that_two_plugins_claim_is_a_conflict_of_both(site, look):
    site.install("acme", "[tuner.t]\n")
    site.install("beta", "[tuner.t]\n")
    catalogue = site.catalogue()
    finding = look(catalogue.plugin("acme"), catalogue)
    assert finding.state == "conflict"
    assert "tuner 't' is also claimed by beta (llmtune-plugin-beta 1.0)" in finding.reason
    assert "acme::NAME" in finding.fix
    assert look(catalogue.plugin("beta"), catalogue).state == "conflict"


@pytest.mark.parametrize("look", [lambda *found: state_of(*found, {}), examine], ids=["list", "doctor"])
def test_a_broken_manifest_and_a_switched_off_plugin_keep_their_reason(site, look):
    site.install("acme", "[wrong")
    site.install("beta")
    catalogue = site.catalogue(disabled=frozenset({"beta"}))
    assert look(catalogue.plugin("acme"), catalogue).state == "broken"
    assert "not valid TOML" in look(catalogue.plugin("acme"), catalogue).reason
    assert "-p no:NAME" in look(catalogue.plugin("beta"), catalogue).reason


def test_what_the_doctor_found_is_remembered_until_the_plugin_changes(plugin_with, tmp_path):
    plugin, catalogue = plugin_with("1 / 0\n")
    memory = tmp_path / "cache" / "health.json"
    assert state_of(plugin, catalogue, remembered(memory)) == OK
    remember(memory, [(plugin, examine(plugin, catalogue))])
    assert state_of(plugin, catalogue, remembered(memory)).state == "broken"
    os.utime(plugin.manifest_path.parent / "plugin.py", (1, 1))
    assert state_of(plugin, catalogue, remembered(memory)) == OK


def test_what_is_fine_again_is_forgotten(plugin_with, tmp_path):
    plugin, _ = plugin_with(HOOK)
    memory = tmp_path / "health.json"
    remember(memory, [(plugin, Finding(state="broken", reason="r", fix="f"))])
    assert list(remembered(memory).values()) == [Finding(state="broken", reason="r", fix="f")]
    remember(memory, [(plugin, OK)])
    assert remembered(memory) == {}


def test_a_conflict_is_not_remembered_because_it_depends_on_others(plugin_with, tmp_path):
    plugin, _ = plugin_with(HOOK)
    remember(tmp_path / "health.json", [(plugin, Finding(state="conflict"))])
    assert remembered(tmp_path / "health.json") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", json.dumps({"k": {"unknown": 1}}), '{"k": 1}'])
def test_a_damaged_memory_is_an_empty_one(tmp_path, text):
    (tmp_path / "health.json").write_text(text)
    assert remembered(tmp_path / "health.json") == {}


def test_a_memory_that_cannot_be_written_is_a_note(plugin_with, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    plugin, _ = plugin_with(HOOK)
    remember(tmp_path / "file" / "health.json", [(plugin, Finding(state="slow"))])
    assert "not remembered" in capsys.readouterr().err


def test_a_finding_is_shown_line_by_line():
    assert Finding(state="broken", reason="a\nb", fix="do").lines() == ["a", "b", "do"]
    assert OK.lines() == []
