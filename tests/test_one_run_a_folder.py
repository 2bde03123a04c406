"""Two runs and one --output_dir, and two processes that fetch one thing."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command_line import Llmtune

from llmtune.errors import UsageError
from llmtune.paths import put_in_place
from llmtune.train.run_folder import held

HOLD = "import sys, time; from pathlib import Path; from llmtune.train.run_folder import held\n"
HOLD += "with held(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(600)"


def holding(folder: Path) -> subprocess.Popen[str]:
    """Return a process that holds a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "held" not in process.stdout.readline():
        assert process.poll() is None
    return process


def test_a_second_run_in_a_folder_is_refused(llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    process = holding(folder)
    try:
        result = llmtune("sft", *tiny_flags, "--add_output_dir_suffix", "false")
    finally:
        process.kill()
        process.communicate()
    assert result.code == 2
    assert f"another run (process {process.pid} on" in result.err
    assert not list(folder.glob("checkpoint-*"))
    again = llmtune("sft", *tiny_flags, "--add_output_dir_suffix", "false")
    assert again.code == 0, again.err
    assert f"(process {process.pid} on" in again.out
    assert "is gone; this one takes over" in again.out


def test_a_folder_is_free_when_its_run_has_ended(tmp_path: Path) -> None:
    said: list[str] = []
    with held(tmp_path, said.append), pytest.raises(UsageError), held(tmp_path, said.append):
        pass
    with pytest.raises(ZeroDivisionError), held(tmp_path, said.append):
        raise ZeroDivisionError
    with held(tmp_path, said.append):
        pass
    assert said == []


def test_of_processes_that_make_one_folder_the_first_wins_and_nothing_is_removed(tmp_path: Path) -> None:
    def made(number: int) -> Path:
        staged = tmp_path / f"staged-{number}"
        staged.mkdir()
        (staged / "file").write_text(str(number))
        return put_in_place(staged, tmp_path / "final")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(made, range(32)))
    assert set(found) == {tmp_path / "final"}
    first = (tmp_path / "final" / "file").read_text()
    assert not (tmp_path / f"staged-{first}").exists()
    assert len(list(tmp_path.glob("staged-*"))) == 31


def test_what_stands_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    (tmp_path / "final").write_text("a file")
    with pytest.raises(OSError, match="final"):
        put_in_place(tmp_path / "staged", tmp_path / "final")


def test_the_libraries_variable_for_no_network_is_as_the_flag(
    llmtune: Llmtune, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = llmtune("infer", "--model_type", "qwen2-0_5b-instruct", "--load_dataset_config", "false")
    assert result.code == 1
    assert "run once without HF_HUB_OFFLINE=1" in result.err
    assert "did not answer" not in result.err + result.out
