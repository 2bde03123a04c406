import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from llmtune.errors import CheckpointError, OutputError
from llmtune.train import checkpoint


@pytest.fixture
def write(tmp_path):
    """Write a complete checkpoint of the run in tmp_path."""

    def complete(step, content="weights"):
        with checkpoint.writing(tmp_path / f"checkpoint-{step}") as folder:
            (folder / "model").write_text(content)
            (folder / "deeper").mkdir()
            (folder / "deeper/state").write_text("state")
        return tmp_path / f"checkpoint-{step}"

    return complete


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_has_its_files_and_the_mark(write, tmp_path):
    folder = write(1)
    assert (names(tmp_path), names(folder)) == (["checkpoint-1"], [checkpoint.MARK, "deeper", "model"])
    assert checkpoint.problem(folder) == ""
    checkpoint.check_complete(folder)
    sizes = {"deeper/state": 5, "model": 7}
    assert json.loads((folder / checkpoint.MARK).read_text())["files"] == sizes


def test_the_final_name_appears_only_when_everything_is_written(tmp_path):
    final = tmp_path / "checkpoint-1"
    with checkpoint.writing(final) as folder:
        (folder / "model").write_text("weights")
        assert not final.exists()
        assert checkpoint.complete_checkpoints(tmp_path) == []
        written = folder.stat().st_ino
    assert final.stat().st_ino == written, "the folder must be renamed, not copied"
    assert checkpoint.complete_checkpoints(tmp_path) == [final]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_writing_leaves_nothing(tmp_path, error):
    def fail():
        with checkpoint.writing(tmp_path / "checkpoint-1") as folder:
            (folder / "model").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_an_error_while_writing_again_keeps_the_checkpoint_that_was_there(write, tmp_path):
    def fail():
        with checkpoint.writing(tmp_path / "checkpoint-1") as folder:
            (folder / "model").write_text("half")
            raise ValueError("no")

    write(1)
    with pytest.raises(ValueError, match="no"):
        fail()
    assert (checkpoint.problem(tmp_path / "checkpoint-1"), names(tmp_path)) == ("", ["checkpoint-1"])


def test_a_checkpoint_written_again_replaces_the_old_one(write, tmp_path):
    write(1, "old and long")
    write(1, "new")
    assert ((tmp_path / "checkpoint-1/model").read_text(), names(tmp_path)) == ("new", ["checkpoint-1"])
    assert checkpoint.problem(tmp_path / "checkpoint-1") == ""


def test_what_a_killed_writer_left_is_written_over(write, tmp_path):
    (tmp_path / ".unfinished-checkpoint-1").mkdir()
    (tmp_path / ".unfinished-checkpoint-1/stale").write_text("stale")
    assert "stale" not in names(write(1))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "model").unlink(), "model is missing"),
        (lambda folder: (folder / "deeper/state").unlink(), "deeper/state is missing"),
        (lambda folder: (folder / "model").write_text("wei"), "model has 3 bytes, 7 were written"),
        (lambda folder: (folder / checkpoint.MARK).unlink(), checkpoint.MARK),
        (lambda folder: (folder / checkpoint.MARK).write_text('{"files": {"mod'), checkpoint.MARK),
        (lambda folder: (folder / checkpoint.MARK).write_text(""), checkpoint.MARK),
        (lambda folder: (folder / checkpoint.MARK).write_text("[]"), checkpoint.MARK),
    ],
    ids=["file", "deep file", "cut file", "no mark", "cut mark", "empty mark", "foreign mark"],
)
def test_a_damaged_checkpoint_is_found_and_the_complete_ones_are_named(write, tmp_path, damage, named, fails):
    write(1)
    damage(write(2))
    assert named in checkpoint.problem(tmp_path / "checkpoint-2")
    error = fails(CheckpointError, checkpoint.check_complete, tmp_path / "checkpoint-2")
    assert ("incomplete" in error.problem, named in error.problem) == (True, True)
    assert str(tmp_path / "checkpoint-1") in error.fix
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoint-1"


def test_a_run_folder_given_instead_of_a_checkpoint_names_the_newest(write, tmp_path, fails):
    write(9)
    write(10)
    error = fails(CheckpointError, checkpoint.check_complete, tmp_path)
    assert ("is a run folder" in error.problem, error.fix) == (True, f"use {tmp_path / 'checkpoint-10'}")


def test_a_checkpoint_that_does_not_exist_names_those_that_do(write, tmp_path, fails):
    write(1)
    error = fails(CheckpointError, checkpoint.check_complete, tmp_path / "checkpoint-7")
    assert ("does not exist" in error.problem, str(tmp_path / "checkpoint-1") in error.fix) == (True, True)
    nothing = fails(CheckpointError, checkpoint.check_complete, tmp_path / "no/checkpoint-7")
    assert nothing.fix == "check the path; no complete checkpoint was found there"


def test_checkpoints_are_ordered_by_step_and_other_folders_are_none(write, tmp_path):
    for step in (100, 20, 3):
        write(step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").mkdir()
    assert [checkpoint.step_of(path) for path in checkpoint.complete_checkpoints(tmp_path)] == [3, 20, 100]
    assert checkpoint.step_of(tmp_path / "checkpoint-best") == -1


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (-1, None, [1, 2, 3, 4]),
        (3, None, [2, 3, 4]),
        (2, 1, [1, 4]),
        (3, 1, [1, 3, 4]),
        (1, 1, [4]),
        (2, 4, [3, 4]),
        (0, 1, [4]),
        (9, 1, [1, 2, 3, 4]),
    ],
)
def test_pruning_keeps_the_newest_then_the_best_then_the_next_newest(write, tmp_path, limit, best, kept):
    for step in (1, 2, 3, 4):
        write(step)
    checkpoint.prune(tmp_path, limit, tmp_path / f"checkpoint-{best}" if best else None)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]


def test_pruning_an_empty_run_is_no_error(tmp_path):
    checkpoint.prune(tmp_path, 1, None)
    assert checkpoint.newest(tmp_path) is None


def test_cleaning_removes_what_is_unfinished_and_nothing_else(write, tmp_path):
    write(1)
    for name in (".unfinished-checkpoint-2", ".unfinished-deleted-checkpoint-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text("half")
    (tmp_path / "logging.jsonl").write_text("")
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == ["checkpoint-1", "logging.jsonl"]


WRITER = """
import sys, time
from pathlib import Path
from llmtune.train import checkpoint

run = Path(sys.argv[1])
for step in range(1, 1000):
    with checkpoint.writing(run / f"checkpoint-{step % 3}") as folder:
        for number in range(6):
            with (folder / f"file-{number}").open("wb", buffering=0) as file:
                for _ in range(4):
                    file.write(b"x" * 5000)
                    time.sleep(0.0005)
        print(step, flush=True)
"""


@pytest.mark.parametrize("written", [1, 2, 4])
@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011])
def test_a_writer_killed_at_any_moment_leaves_checkpoints_complete_or_absent(tmp_path, written, delay):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(written):
            process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    found = list(tmp_path.glob("checkpoint-*"))
    assert [path.name for path in found if checkpoint.problem(path)] == []
    assert len(found) >= min(written - 1, 2)
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == sorted(path.name for path in found)


KILLED_BEFORE_EACH_STEP = """
import os, signal, sys
from pathlib import Path
from llmtune.train import checkpoint

def write_twice(run, moment):
    steps = 0
    def kill(event, arguments):
        nonlocal steps
        if event == "open" or event.startswith(("os.", "shutil.")):
            steps += 1
            if steps == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)
    for content in ("old", "newer"):
        with checkpoint.writing(run / "checkpoint-1") as folder:
            (folder / "model").write_text(content)
            (folder / "state").write_text(content)
    os._exit(0)

moment, status = 0, 9
while status:
    moment += 1
    run = Path(sys.argv[1]) / str(moment)
    run.mkdir()
    child = os.fork()
    if not child:
        write_twice(run, moment)
    _, status = os.waitpid(child, 0)
    final = run / "checkpoint-1"
    if final.exists() and checkpoint.problem(final):
        print(moment, checkpoint.problem(final))
print("moments", moment)
"""


def test_a_writer_killed_before_each_single_step_leaves_a_checkpoint_complete_or_absent(tmp_path):
    command = [sys.executable, "-c", KILLED_BEFORE_EACH_STEP, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    name, moments = done.stdout.split()
    assert (name, int(moments) > 20) == ("moments", True)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from llmtune.errors import OutputError
from llmtune.train import checkpoint

run = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for step, size in ((1, 5_000), (2, 50_000)):
    try:
        with checkpoint.writing(run / f"checkpoint-{step}") as folder:
            (folder / "model").write_bytes(b"x" * size)
    except OutputError as error:
        print(step, error)
"""


def test_a_full_disk_is_named_with_the_last_complete_checkpoint_and_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"2 no space left for {tmp_path / 'checkpoint-2'}")
    assert f"last complete checkpoint: {tmp_path / 'checkpoint-1'}" in done.stdout
    assert (names(tmp_path), checkpoint.problem(tmp_path / "checkpoint-1")) == (["checkpoint-1"], "")


def test_a_full_disk_without_a_checkpoint_says_none(tmp_path, fails):
    import errno

    def fill():
        with checkpoint.writing(tmp_path / "checkpoint-1"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert "last complete checkpoint: none" in fails(OutputError, fill).fix


def test_an_error_of_the_system_that_is_no_full_disk_stays_what_it_is(tmp_path):
    def fail():
        with checkpoint.writing(tmp_path / "checkpoint-1"):
            raise PermissionError("no")

    with pytest.raises(PermissionError):
        fail()


TWO_MACHINES = """
import sys
from pathlib import Path

from llmtune.train import checkpoint, ranks

final, everywhere = Path(sys.argv[1]), sys.argv[2] == "everywhere"
with ranks.joined("gloo"), checkpoint.writing_together(final, on_each_machine=everywhere) as staged:
    print(staged.is_dir())
    if staged.is_dir():
        (staged / f"rng_state_{ranks.number()}.pth").write_text("numbers")
"""


@pytest.mark.parametrize(
    ("folders", "everywhere", "found"),
    [
        (("one", "other"), True, [["rng_state_0.pth"], ["rng_state_1.pth"]]),
        (("one", "one"), True, [["rng_state_0.pth", "rng_state_1.pth"]] * 2),
        (("one", "one"), False, [["rng_state_0.pth", "rng_state_1.pth"]] * 2),
        (("one", "other"), False, [["rng_state_0.pth"], None]),
    ],
    ids=["each its own", "a shared file system", "rank 0 alone, shared", "rank 0 alone, not shared"],
)
def test_the_first_rank_of_each_machine_can_write_a_checkpoint(folders, everywhere, found, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    finals = [tmp_path / folder / "checkpoint-1" for folder in folders]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_MACHINES, str(final), "everywhere" if everywhere else "once"],
            env={**os.environ, **place, "RANK": str(rank), "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, final in enumerate(finals)
    ]
    printed = [one.communicate(timeout=120)[0].strip() for one in started]
    assert [one.returncode for one in started] == [0, 0]
    assert printed == [str(names is not None) for names in found]
    for final, names in zip(finals, found, strict=True):
        there = sorted(path.name for path in final.glob("rng_*")) if final.exists() else None
        assert there == names
        assert names is None or checkpoint.problem(final) == ""
