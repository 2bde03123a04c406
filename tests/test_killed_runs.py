"""A run that is killed again and again, and resumed each time, ends as the run that nobody disturbed.

`pytest tests/test_killed_runs.py --kills 20` kills more kinds of runs, and more often, than CI does.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from command_line import NAMES
from forked import Forked, forked_ranks
from safetensors.torch import load_file

from llmtune.train.checkpoint import complete_checkpoints, newest, problem

RUN = (
    *("--model_type", "smollm2-135m-instruct", "--dataset", "self-cognition#40", *NAMES, "--dtype", "fp32"),
    *("--gradient_accumulation_steps", "4", "--logging_steps", "1", "--disable_tqdm"),
    *("--eval_steps", "4", "--save_steps", "2", "--save_only_model", "false", "--add_output_dir_suffix", "false"),
    *("--lora_dropout", "0.2", "--max_length", "512", "--micro_batch_tokens", "300", "--learning_rate", "1e-3"),
)
SPLIT = ("--dataset_test_ratio", "0.1")
KINDS = {
    "lora": SPLIT,
    "full": (*SPLIT, "--sft_type", "full"),
    "adalora": (*SPLIT, "--sft_type", "adalora", "--adalora_tinit", "2", "--adalora_tfinal", "6"),
    "packing": (*SPLIT, "--packing", "true"),
    "streaming": ("--streaming", "true", "--streaming_val_size", "4", "--streaming_buffer_size", "8"),
    "two ranks": SPLIT,
}


class Run:
    """One run, started as often as it is killed."""

    def __init__(self, kind: str, tiny: Path, folder: Path, steps: int) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.words = ["sft", *RUN, *KINDS[kind], "--model_id_or_path", str(tiny), "--max_steps", str(steps)]
        self.words += ["--output_dir", str(folder)]
        self.ranks = 2 if kind == "two ranks" else 1

    def start(self) -> list[Forked]:
        """Start it, or go on with it from its newest complete checkpoint."""
        resumed = ["--resume_from_checkpoint", str(found)] if (found := newest(self.folder)) else []
        return forked_ranks([*self.words, *resumed], self.ranks, self.log)

    def finish(self) -> None:
        processes = self.start()
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0] * self.ranks, self.log.read_text()[-3000:]

    def is_saving(self) -> bool:
        return bool(list(self.folder.glob(".unfinished-checkpoint-*")))

    def logged(self) -> int:
        log = self.folder / "logging.jsonl"
        return log.read_text().count('"loss"') if log.exists() else 0

    def kill(self, generator: random.Random, *, inside_of_saving: bool) -> bool:
        """Start it and kill all of its processes at a random moment; return whether it was inside of saving then."""
        processes = self.start()
        steps, began = generator.randint(1, 5), self.logged()
        while self.logged() != began and alive(processes):  # a resumed run cuts the log first
            time.sleep(0.001)
        target = self.logged() + steps
        while alive(processes) and not (self.logged() >= target and (self.is_saving() or not inside_of_saving)):
            time.sleep(0.0005)
        time.sleep(generator.uniform(0, 0.01))
        children = [child for process in processes for child in children_of(process)]
        for process in (*processes, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        saving = self.is_saving()
        for process in processes:
            process.join()
        psutil.wait_procs(children)
        return saving


def children_of(process: Forked) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(processes: Sequence[Forked]) -> bool:
    return all(process.is_alive() for process in processes)


IN_CI = ("lora", "streaming", "two ranks")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in IN_CI else [pytest.mark.thorough]) for kind in KINDS]
)
def test_it_ends_as_the_run_without_kills(kind: str, tiny: Path, tmp_path: Path, kills: int) -> None:
    steps = 12 + 4 * kills  # few are left when it has been killed as often as that
    whole, killed = (Run(kind, tiny, tmp_path / name, steps) for name in ("whole", "killed"))
    whole.finish()
    generator = random.Random(kind)
    saving = 0
    for number in range(kills):
        assert newest(killed.folder) != killed.folder / f"checkpoint-{steps}", "too fast to be killed"
        saving += killed.kill(generator, inside_of_saving=number % 2 == 1)
        assert [problem(path) for path in killed.folder.glob("checkpoint-*")] == [""] * len(
            complete_checkpoints(killed.folder)
        )
    killed.finish()
    print(f"{kind}: killed {kills} times, {saving} of them inside of saving")
    for name in ("adapter_model.safetensors", "model.safetensors"):
        found, expected = (run.folder / f"checkpoint-{steps}" / name for run in (killed, whole))
        assert found.exists() == expected.exists()
        if expected.exists():
            assert found.read_bytes() == expected.read_bytes()
            assert any(value.abs().max() > 0 for value in load_file(expected).values())
    logs = [(run.folder / "logging.jsonl").read_text() for run in (killed, whole)]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[1].splitlines() if '"loss"' in line] == list(range(1, steps + 1))
