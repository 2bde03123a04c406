from pathlib import Path

import pytest

from llmtune.config import environment
from llmtune.errors import UsageError


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
    assert environment.world() == (0, 1), "schedulers set RANK for machines"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert environment.world() == (3, 4)


def test_a_world_without_local_ranks_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="WORLD_SIZE=4 is set and LOCAL_RANK is not"):
        environment.world()


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


def test_the_record_has_the_processes_and_devices_of_the_run(monkeypatch):
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "NPROC_PER_NODE": "2", "NNODES": "1", "NODE_RANK": "0", "USE_HF": "1"}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}
    for name, value in {**given, "MODELSCOPE_API_TOKEN": "ms_secret", "UNRELATED": "x"}.items():
        monkeypatch.setenv(name, value)
    record = environment.recorded()
    assert given.items() <= record.items()
    assert (record["MODELSCOPE_API_TOKEN"], "UNRELATED" in record) == ("set", False)


LAUNCH = ("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "RANK", "WORLD_SIZE")


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a launch, and no others."""

    def set_variables(**variables):
        for name in LAUNCH:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def test_one_process_unless_more_are_asked_for(launched):
    launched()
    assert environment.processes() is None
    launched(NPROC_PER_NODE="2", LOCAL_RANK="0")
    assert environment.processes() is None, "a process of a launch launches no others"
    launched(NPROC_PER_NODE="3")
    asked = environment.processes()
    assert (asked.per_node, asked.nodes, asked.address, asked.port) == (3, 1, "127.0.0.1", None)
    assert environment.world() == (0, 3)


def test_machines_count_their_processes_on(launched):
    launched(NPROC_PER_NODE="2", NNODES="3", NODE_RANK="1", MASTER_ADDR="10.0.0.1", MASTER_PORT="1234")
    asked = environment.processes()
    variables = asked.variables(1, asked.port)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [variables[name] for name in names] == ["3", "1", "6", "2", "10.0.0.1", "1234"]


def test_processes_share_the_cores_unless_the_user_says_otherwise(launched, monkeypatch):
    launched(NPROC_PER_NODE="4")
    monkeypatch.setattr("os.cpu_count", lambda: 10)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment.processes().variables(0, 1)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment.processes().variables(0, 1)["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE"),
        ({"NPROC_PER_NODE": "gpu"}, "NPROC_PER_NODE"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "NODE_RANK=2"),
        ({"NNODES": "2"}, "MASTER_ADDR"),
        ({"NPROC_PER_NODE": "2", "MASTER_PORT": "x"}, "MASTER_PORT"),
        ({"NPROC_PER_NODE": "2", "MASTER_PORT": "99999"}, "MASTER_PORT=99999"),
    ],
)
def test_a_wrong_variable_is_named(launched, variables, named, fails):
    launched(**variables)
    error = fails(UsageError, environment.processes)
    assert named in error.problem
    assert error.fix
