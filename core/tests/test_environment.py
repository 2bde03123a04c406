from pathlib import Path

import pytest

from llmtune.config import environment


@pytest.mark.parametrize(
    ("value", "names"), [("a,b", {"a", "b"}), (" a , ,b,", {"a", "b"}), ("", set()), (None, set())]
)
@pytest.mark.parametrize(
    ("variable", "read"),
    [
        ("LLMTUNE_ONLY_PLUGINS", environment.only_plugins),
        ("LLMTUNE_DISABLE_PLUGINS", environment.disabled_plugins),
    ],
)
def test_switches_are_separated_by_commas(monkeypatch, variable, read, value, names):
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert read() == names


@pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_trace_is_on_unless_empty_or_zero(monkeypatch, value, on):
    monkeypatch.setenv("LLMTUNE_PLUGIN_TRACE", value)
    assert environment.plugin_trace() is on


@pytest.mark.parametrize(
    ("variables", "hub"),
    [
        ({}, None),
        ({"LLMTUNE_HUB": "pypi"}, "pypi"),
        ({"USE_HF": "1", "LLMTUNE_HUB": "pypi"}, "huggingface"),
        ({"USE_HF": "True"}, "huggingface"),
        ({"USE_HF": "0", "LLMTUNE_HUB": "pypi"}, "pypi"),
    ],
)
def test_swifts_variable_for_the_hub_wins(monkeypatch, variables, hub):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.preferred_hub() == hub


def test_the_cache_is_the_users_own_or_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path))
    assert environment.cache_folder() == tmp_path
    monkeypatch.delenv("LLMTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert environment.cache_folder() == tmp_path / "xdg/llmtune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert environment.cache_folder() == Path.home() / ".cache/llmtune"


def test_rank_and_world_are_those_of_torchrun_or_one_process(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert environment.world() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert environment.world() == (3, 4)


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("", None), ("wide", None)])
def test_the_width_is_a_number_or_unknown(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert environment.terminal_width() == width


def test_the_record_names_what_shaped_the_run_and_never_holds_a_token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LLMTUNE_HUB", "pypi")
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    record = environment.recorded()
    assert (record["LLMTUNE_HUB"], record["HF_TOKEN"]) == ("pypi", "set")
    assert "MODELSCOPE_API_TOKEN" not in record
    assert "secret" not in str(record)
