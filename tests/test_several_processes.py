"""NPROC_PER_NODE: the same training in two processes, one run folder, stops and failures that end all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import NAMES, Llmtune, Result, llmtune_process
from safetensors.torch import load_file

from llmtune.train.checkpoint import complete_checkpoints, problem

# 15 rows in steps of 4: an epoch ends with a step of 3, which two processes cannot halve; nor the 5 rows to validate.
BASE = (
    *(
        "--model_type",
        "smollm2-135m-instruct",
        "--dataset",
        "self-cognition#20",
        *NAMES,
        "--dataset_test_ratio",
        "0.25",
    ),
    *("--dtype", "fp32", "--learning_rate", "1e-2", "--warmup_ratio", "0", "--logging_steps", "1", "--disable_tqdm"),
    *("--max_steps", "7", "--eval_steps", "5", "--save_steps", "5", "--add_output_dir_suffix", "false"),
)


@pytest.fixture(scope="module")
def flags(tiny: Path) -> list[str]:
    return [*BASE, "--model_id_or_path", str(tiny)]


def together(*arguments: str) -> Result:
    """Run a command in two processes."""
    return llmtune_process(*arguments, NPROC_PER_NODE="2", OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def pair(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes with batches of one, two of them in a step."""
    folder = tmp_path_factory.mktemp("pair")
    done = together(
        "sft", *flags, *("--gradient_accumulation_steps", "2", "--lora_dropout", "0"), "--output_dir", str(folder)
    )
    assert done.code == 0, done.err
    (folder / "stdout").write_text(done.out)
    (folder / "stderr").write_text(done.err)
    return folder


def log(folder: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def test_two_processes_train_what_one_trains_with_the_same_rows_in_a_step(
    llmtune: Llmtune, flags: list[str], pair: Path, tmp_path: Path
) -> None:
    done = llmtune(
        "sft", *flags, *("--gradient_accumulation_steps", "4", "--lora_dropout", "0"), "--output_dir", str(tmp_path)
    )
    assert done.code == 0, done.err
    found, expected = (load_file(folder / "checkpoint-7/adapter_model.safetensors") for folder in (pair, tmp_path))
    assert max(value.abs().max() for name, value in expected.items() if "lora_B" in name) > 1e-2, "nothing was trained"
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-6 * value.norm(), name
    for name in ("loss", "grad_norm", "eval_loss"):
        assert log(pair, name) == pytest.approx(log(tmp_path, name), rel=1e-6), name
    assert sorted(log(pair, "eval_loss")) == [5, 7]


def test_rank_0_writes_and_speaks_for_all(pair: Path) -> None:
    assert [path.name for path in complete_checkpoints(pair)] == ["checkpoint-5", "checkpoint-7"]
    states = [torch.load(pair / f"checkpoint-7/rng_state_{rank}.pth", weights_only=False)["cpu"] for rank in (0, 1)]
    assert not states[0].equal(states[1])
    assert len(list(pair.glob("runs/*"))) == 1
    record = json.loads((pair / "run.json").read_text())
    assert (record["state"], record["plan"]["resolved"]["ddp_backend"]["value"]) == ("finished", "gloo")
    assert record["environment"]["NPROC_PER_NODE"] == "2"
    assert len((pair / "logging.jsonl").read_text().splitlines()) == 7 + 2
    assert (pair / "stdout").read_text().count("step 7: loss") == 1
    assert (pair / "stderr").read_text() == ""


def test_ctrl_c_stops_all_after_the_same_step_and_saves(flags: list[str], tmp_path: Path) -> None:
    endless = [word if word not in ("5", "7") else "2000" for word in flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "llmtune", "sft", *endless, "--output_dir", str(tmp_path)],
        env={**os.environ, "NPROC_PER_NODE": "2", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it to a command
    )
    while not (tmp_path / "logging.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert output.count("stopping after this step") == 1
    assert output.count("error:") == 1
    (saved,) = tmp_path.glob("checkpoint-*")
    assert problem(saved) == ""
    assert len(list(saved.glob("rng_state_*.pth"))) == 2
    assert f"--resume_from_checkpoint {saved}" in output
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "interrupted"


NOTES_WHO_READS = """
import os, time
from pathlib import Path
from torch import distributed
from llmtune import register_dataset

def note(word):
    with (Path(__file__).parent / "notes").open("a") as file:
        print("rank", os.environ["RANK"], word, "connected" if distributed.is_initialized() else "alone", file=file)

@register_dataset("slow")
def slow():
    note("starts")
    time.sleep(1)
    note("ends")
    return [{"query": str(number), "response": "yes"} for number in range(20)]
"""


def test_data_is_prepared_by_one_rank_before_the_ranks_are_connected(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(NOTES_WHO_READS)
    own = [word for word in flags if word not in ("self-cognition#20", *NAMES)]
    own.insert(own.index("--dataset") + 1, "slow")
    done = together(
        "sft", *own, "--custom_register_path", str(tmp_path / "slow.py"), "--output_dir", str(tmp_path / "run")
    )
    assert done.code == 0, done.err
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes == [f"rank {rank} {word} alone" for rank in (0, 1) for word in ("starts", "ends")]


FAILS_ON_RANK_1 = """
from llmtune.api import hookimpl


@hookimpl
def llmtune_model_loaded(loaded, run):
    if run.rank == 1:
        raise ZeroDivisionError("only here")
"""


def test_a_rank_that_fails_ends_all_and_its_error_is_shown_once(flags: list[str], tmp_path: Path) -> None:
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILS_ON_RANK_1)
    done = together("sft", *flags, "--custom_register_path", str(plugin), "--output_dir", str(tmp_path / "run"))
    assert done.code == 1
    assert done.err.count("[rank 1] ZeroDivisionError: only here") == 1
    lines = [line for line in done.err.splitlines() if not line.startswith("[rank 1] ")]
    assert lines == [], "the other rank only lost its peer, which is no news"
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "failed"
