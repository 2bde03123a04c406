"""The launcher, with a command that needs neither torch nor a model."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from llmtune.cli import launch as launcher
from llmtune.cli.launch import Ending, explanation, launch
from llmtune.errors import UsageError

PROBE = """
import os, signal, sys, time
from pathlib import Path
from llmtune import register_command
from llmtune.api import UsageError

RANK = os.environ["RANK"]

def variables(arguments):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    Path(arguments[0], RANK).write_text(" ".join(os.environ[name] for name in names))
    print(f"output of {RANK}")
    print(f"warning of {RANK}", file=sys.stderr)

def all_wrong(arguments):
    raise UsageError("the same mistake everywhere", fix="mend it")

def one_wrong(arguments):
    if RANK == "1":
        raise UsageError("a mistake of rank 1", fix="mend it")
    time.sleep(60)

def one_broken(arguments):
    if RANK == "1":
        raise ZeroDivisionError("rank 1 divides")
    time.sleep(0.3)
    raise ConnectionError("rank 0 has lost its peer")

def one_killed(arguments):
    if RANK == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

def waiting(arguments):
    received = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: received.append(number))
    Path(arguments[0], RANK).touch()
    while not received:
        time.sleep(0.01)
    Path(arguments[0], RANK).write_text(" ".join(map(str, map(int, received))))
    sys.exit(128 + received[0])

for command in (variables, all_wrong, one_wrong, one_broken, one_killed, waiting):
    register_command(command.__name__, command, help="a probe")
"""


@pytest.fixture
def probe(tmp_path):
    """Arguments of a command of PROBE."""
    path = tmp_path / "probe.py"
    path.write_text(PROBE)
    return lambda *arguments: ["--custom_register_path", str(path), *map(str, arguments)]


@pytest.fixture(autouse=True)
def two(monkeypatch):
    for name in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setattr(launcher, "_SECONDS_TO_END", 0.5)


def test_one_process_is_not_launched(monkeypatch):
    monkeypatch.delenv("NPROC_PER_NODE")
    assert launch(["--version"]) is None


def test_a_process_of_a_launch_launches_no_others(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch(["--version"]) is None


def test_each_process_has_the_variables_of_torchrun_and_rank_0_alone_is_heard(probe, tmp_path, capfd):
    assert launch(probe("variables", tmp_path)) == 0
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert (first[:5], second[:5]) == (["0", "0", "2", "2", "127.0.0.1"], ["1", "1", "2", "2", "127.0.0.1"])
    assert first[5] == second[5]
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(first[5])))
    out, err = capfd.readouterr()
    assert (out, err) == ("output of 0\n", "warning of 0\n")


def test_the_second_machine_has_the_higher_ranks(probe, tmp_path, monkeypatch):
    for name, value in {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    assert launch(probe("variables", tmp_path)) == 0
    assert (tmp_path / "2").read_text() == "2 0 4 2 10.0.0.1 1234"
    assert (tmp_path / "3").read_text() == "3 1 4 2 10.0.0.1 1234"


def test_what_all_find_wrong_is_said_once_with_its_exit_code(probe, capfd):
    assert launch(probe("all_wrong")) == 2
    assert capfd.readouterr().err == "error: the same mistake everywhere\n  mend it\n"


def test_an_error_of_another_rank_carries_its_number_and_ends_the_rest(probe, capfd):
    start = time.monotonic()
    assert launch(probe("one_wrong")) == 2
    assert time.monotonic() - start < 30
    assert capfd.readouterr().err == "[rank 1] error: a mistake of rank 1\n[rank 1]   mend it\n"


def test_the_traceback_of_the_first_failure_is_shown_and_not_what_it_did_to_the_others(probe, capfd):
    assert launch(probe("one_broken")) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == "[rank 1] ZeroDivisionError: rank 1 divides"
    assert [line for line in lines if not line.startswith("[rank 1] ")] == []


def test_a_killed_process_is_named(probe, capfd):
    assert launch(probe("one_killed")) == 137
    assert capfd.readouterr().err == "error: process 1 of 2 ended with exit code 137 (SIGKILL: out of memory?)\n"


@pytest.fixture
def waiting(probe, tmp_path):
    """A launcher in a process of its own, in a group of its own, whose processes wait for a signal."""
    code = "import sys; from llmtune.cli.launch import launch; sys.exit(launch(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *probe("waiting", tmp_path)], start_new_session=True)
    while not all((tmp_path / rank).exists() for rank in "01"):
        assert process.poll() is None
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])
def test_a_signal_reaches_every_process_once_and_is_the_exit_code(waiting, tmp_path, number, send):
    send(waiting.pid, number)
    assert waiting.wait(timeout=30) == 128 + number
    assert [(tmp_path / rank).read_text() for rank in "01"] == [str(int(number))] * 2


def test_processes_stop_politely_when_their_launcher_is_killed(waiting, tmp_path):
    waiting.kill()
    deadline = time.monotonic() + 30
    while not all((tmp_path / rank).read_text() for rank in "01"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {(tmp_path / rank).read_text() for rank in "01"} == {str(int(signal.SIGTERM))}


def test_what_the_user_has_seen_is_not_said_again():
    seen = Ending(rank=0, code=2, time=2, text="error: a\n  b\n", shown=True)
    other = Ending(rank=1, code=2, time=1, text="error: a\n  c\n")
    assert explanation(seen, [seen, other], 2) == []
    assert explanation(other, [seen, other], 2) == ["[rank 1]   c"]
    assert explanation(Ending(rank=1, code=2, time=1, text="error: a\n"), [seen], 2) == []


def test_a_port_that_is_taken_is_said_before_anything_starts(probe, monkeypatch, fails):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        error = fails(UsageError, launch, ["sft"])
    assert f"MASTER_PORT={port}: Address already in use" in error.problem
