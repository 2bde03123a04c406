"""Runs that end early: interrupted, resumed. Those that are killed: test_killed_runs.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from command_line import Llmtune, without
from safetensors.torch import load_file

from llmtune.train.checkpoint import problem

LONG = ("--max_steps", "500", "--eval_steps", "1", "--save_steps", "1", "--gradient_accumulation_steps", "1")
LONG += ("--logging_steps", "1")


def start(flags: list[str], output: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a run that saves at every step, in a process; return when the second checkpoint is there."""
    flags = without(flags, "--max_steps", "--gradient_accumulation_steps")
    command = [sys.executable, "-m", "llmtune", "sft", *flags, *LONG]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(output.rglob("checkpoint-2")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    return process, next(output.rglob("checkpoint-2")).parent


def test_ctrl_c_stops_after_saving_with_exit_code_130(tiny_flags: list[str], tmp_path: Path) -> None:
    process, folder = start(tiny_flags, tmp_path / "output")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert json.loads((folder / "run.json").read_text())["state"] == "interrupted"
    assert (folder / "images" / "loss.png").exists()
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert f"--resume_from_checkpoint {newest}" in output
    assert problem(newest) == ""


def test_a_resumed_run_is_the_uninterrupted_run(llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> None:
    """Bit for bit, and with the same log, in the same folder."""
    flags = [*without(tiny_flags, "--max_steps", "--output_dir"), "--max_steps", "6", "--logging_steps", "1"]
    flags += ["--eval_steps", "3", "--save_total_limit", "-1", "--add_output_dir_suffix", "false"]
    assert llmtune("sft", *flags, "--output_dir", str(tmp_path / "whole")).code == 0
    assert llmtune("sft", *flags, "--output_dir", str(tmp_path / "resumed")).code == 0
    log = (tmp_path / "resumed" / "logging.jsonl").read_text()
    os.rename(tmp_path / "resumed" / "checkpoint-6", tmp_path / "first-time")
    again = llmtune("sft", *flags, "--resume_from_checkpoint", str(tmp_path / "resumed" / "checkpoint-3"))
    assert again.code == 0, again.err
    for name in ("whole/checkpoint-6", "first-time"):
        expected = load_file(tmp_path / name / "adapter_model.safetensors")
        found = load_file(tmp_path / "resumed" / "checkpoint-6" / "adapter_model.safetensors")
        assert all(expected[key].equal(found[key]) for key in expected)
    assert (tmp_path / "resumed" / "logging.jsonl").read_text() == log
