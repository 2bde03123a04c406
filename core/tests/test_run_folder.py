import json

import pytest

from llmtune.errors import Interrupted, OutputError
from llmtune.train.run_folder import RunRecord, check_writable, create_run_folder, write_json


def numbers(parent):
    return sorted(path.name.split("-")[0] for path in parent.iterdir())


def test_runs_of_a_model_are_numbered_one_after_the_other(tmp_path):
    folders = [create_run_folder(tmp_path, "m", suffix=True) for _ in range(3)]
    assert [folder.name.split("-")[0] for folder in folders] == ["v0", "v1", "v2"]
    assert numbers(tmp_path / "m") == ["v0", "v1", "v2"]


def test_the_number_is_one_more_than_the_highest_that_is_there(tmp_path):
    for name in ("v2-20240101-000000", "v10-20240101-000000", "v99", "other"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert create_run_folder(tmp_path, "m", suffix=True).name.startswith("v11-")


def test_without_suffix_the_folder_is_the_one_that_was_named(tmp_path):
    for _ in range(2):
        assert create_run_folder(tmp_path / "a/b", "m", suffix=False) == tmp_path / "a/b"


def test_a_run_folder_is_absolute(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    assert create_run_folder(Path("out"), "m", suffix=True).parent == tmp_path / "out/m"


def test_checking_creates_nothing(tmp_path):
    check_writable(tmp_path / "a/b/c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_an_output_dir_that_is_a_file_or_in_one_is_refused(tmp_path, below, fails):
    (tmp_path / "file").write_text("")
    error = fails(OutputError, check_writable, tmp_path / "file" / below)
    assert (f"{tmp_path / 'file'} is not a folder" in error.problem, "--output_dir" in error.fix) == (True, True)


def test_a_folder_that_cannot_be_created_is_an_output_error(tmp_path, fails):
    (tmp_path / "file").write_text("")
    error = fails(OutputError, create_run_folder, tmp_path / "file", "m", suffix=True)
    assert (str(tmp_path / "file") in error.problem, "--output_dir" in error.fix) == (True, True)


def test_json_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    write_json(tmp_path / "a.json", {"text": "你好"})
    write_json(tmp_path / "a.json", {"text": "new"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"text": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_content_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"n": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}


def test_json_that_cannot_be_written_is_an_output_error(tmp_path, fails):
    error = fails(OutputError, write_json, tmp_path / "missing/a.json", {})
    assert "missing/a.json" in error.problem


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_run_that_goes_on_is_running_and_one_that_ended_is_finished(tmp_path):
    run = RunRecord(tmp_path, {"plan": {"command": "sft"}})
    assert (record(tmp_path)["state"], record(tmp_path)["plan"]) == ("running", {"command": "sft"})
    with run.watching():
        run.update(steps=3)
        assert (record(tmp_path)["steps"], record(tmp_path)["state"]) == (3, "running")
    assert (record(tmp_path)["state"], "ended" in record(tmp_path)) == ("finished", True)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("first line\nsecond line"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (Interrupted("stopped"), "interrupted"),
        (SystemExit(1), "failed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_that_ends_with_an_error_records_it_and_passes_it_on(tmp_path, error, state):
    run = RunRecord(tmp_path, {})

    def fail():
        with run.watching():
            raise error

    with pytest.raises(type(error)):
        fail()
    assert record(tmp_path)["state"] == state
    assert record(tmp_path)["error"] == f"{type(error).__name__}: {error}".splitlines()[0]


def test_a_record_that_cannot_be_written_does_not_hide_the_error_of_the_run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run = RunRecord(folder, {})

    def fail():
        with run.watching():
            (folder / "run.json").unlink()
            folder.rmdir()
            raise ValueError("the real one")

    with pytest.raises(ValueError, match="the real one"):
        fail()
