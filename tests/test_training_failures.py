"""What goes wrong while a model trains: said with what is to blame, and nothing that was complete is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Llmtune, free_port, without
from forked import forked
from safetensors.torch import load_file

from llmtune.train.checkpoint import complete_checkpoints, newest, problem

FILLS_THE_DISK = """
import resource

from llmtune.api import hookimpl


@hookimpl
def llmtune_checkpoint_saved(folder, run):
    if folder.name == "checkpoint-2":  # from here on no file can be longer: the adapter cannot be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (11000, resource.RLIM_INFINITY))
"""

SOME_TOKEN_IS_BROKEN = """
import torch

from llmtune.api import hookimpl


@hookimpl
def llmtune_model_loaded(loaded, run):
    token = loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[token] = float("nan")
"""

HOLDS_300_TOKENS = """
import torch

from llmtune.api import hookimpl


@hookimpl
def llmtune_model_loaded(loaded, run):
    def refuse(layer, inputs, output):
        if torch.is_grad_enabled() and output[..., 0].numel() > 300:
            raise torch.OutOfMemoryError("out of memory")

    loaded.model.get_input_embeddings().register_forward_hook(refuse)
"""


def plugin(tmp_path: Path, code: str) -> tuple[str, str]:
    path = tmp_path / "plugin.py"
    path.write_text(code, encoding="utf-8")
    return "--custom_register_path", str(path)


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "logging.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def flags(tiny_flags: list[str], tmp_path: Path) -> list[str]:
    """Six steps of four rows, each of them logged and saved, in tmp_path/run."""
    flags = without(tiny_flags, "--output_dir", "--max_steps", "--gradient_accumulation_steps")
    loop = ("--max_steps", "6", "--gradient_accumulation_steps", "4", "--logging_steps", "1", "--save_steps", "2")
    return [*flags, *loop, "--add_output_dir_suffix", "false", "--output_dir", str(tmp_path / "run")]


def test_a_disk_that_fills_up_costs_nothing_that_was_complete(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    process = forked(["sft", *flags, *plugin(tmp_path, FILLS_THE_DISK)], {"OMP_NUM_THREADS": "1"}, log)
    process.join(120)
    output = log.read_text()
    assert process.exitcode == 1, output
    assert f"error: no space left for {folder / 'checkpoint-4'}" in output
    assert f"last complete checkpoint: {folder / 'checkpoint-2'}" in output
    assert "Traceback" not in output
    assert complete_checkpoints(folder) == [folder / "checkpoint-2"]
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    again = llmtune("sft", *flags, "--resume_from_checkpoint", str(folder / "checkpoint-2"))
    assert again.code == 0, again.err
    whole = llmtune("sft", *without(flags, "--output_dir"), "--output_dir", str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    found, expected = (
        (one / "checkpoint-6/adapter_model.safetensors").read_bytes() for one in (folder, tmp_path / "whole")
    )
    assert found == expected


def test_a_loss_that_is_no_number_names_the_rows_and_changes_nothing(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    rows = [{"query": f"q{number}", "response": "~" if number == 5 else "fine"} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = [
        word for word in flags if word not in ("小智", "Ada", "团队", "The Ada team", "--model_name", "--model_author")
    ]
    own[own.index("self-cognition#20")] = str(tmp_path / "rows.jsonl")
    done = llmtune("sft", *own, "--dataset_test_ratio", "0", *plugin(tmp_path, SOME_TOKEN_IS_BROKEN))
    assert done.code == 1
    assert "is not a finite number" in done.err
    assert f"rows {tmp_path / 'rows.jsonl'}:6\n" in done.err
    assert ("lower --learning_rate" in done.err, "fp16" in done.err) == (True, False)
    assert [f"the last checkpoint is from before: {path}" for path in complete_checkpoints(tmp_path / "run")[-1:]] == [
        line.strip() for line in done.err.splitlines() if "the last checkpoint" in line
    ]
    assert "Traceback" not in done.err
    for path in complete_checkpoints(tmp_path / "run"):
        assert all(value.isfinite().all() for value in load_file(path / "adapter_model.safetensors").values())


def test_a_step_that_memory_does_not_hold_is_computed_in_smaller_parts(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    flags += ["--lora_dropout", "0", "--gradient_checkpointing", "false", "--dataset_test_ratio", "0"]
    done = llmtune("sft", *flags, "--micro_batch_tokens", "5000")
    assert done.code == 0, done.err
    assert "memory did not hold" not in done.out
    lowered = llmtune(
        *("sft", *without(flags, "--output_dir"), "--output_dir", str(tmp_path / "lowered")),
        *("--micro_batch_tokens", "5000", *plugin(tmp_path, HOLDS_300_TOKENS)),
    )
    assert lowered.code == 0, lowered.err
    assert "note: memory did not hold step 1; from here on a forward pass computes up to" in lowered.out
    assert losses(tmp_path / "lowered") == pytest.approx(losses(tmp_path / "run"), rel=1e-5)


def test_a_single_row_that_memory_does_not_hold_ends_the_run(
    llmtune: Llmtune, flags: list[str], tmp_path: Path
) -> None:
    holds_less = HOLDS_300_TOKENS.replace("300", "30")
    done = llmtune("sft", *flags, "--gradient_checkpointing", "false", *plugin(tmp_path, holds_less))
    assert done.code == 1
    assert "memory does not hold the training of a single row" in done.err
    assert "lower --max_length" in done.err


def test_training_stops_where_evaluations_get_no_better(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    still = (
        "--learning_rate",
        "1e-20",
        "--eval_steps",
        "1",
        "--early_stop_interval",
        "2",
        "--dataset_test_ratio",
        "0.2",
    )
    done = llmtune("sft", *flags, *still)
    assert done.code == 0, done.err
    assert "stopping: eval_loss was" in done.out
    assert len(losses(tmp_path / "run")) == 3
    assert newest(tmp_path / "run") == tmp_path / "run/checkpoint-3"


def test_a_new_run_does_not_mix_with_another_one(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    assert llmtune("sft", *flags).code == 0
    again = llmtune("sft", *flags)
    assert again.code == 2
    assert "holds checkpoints of another run: checkpoint-4, checkpoint-6" in again.err
    assert f"--resume_from_checkpoint {tmp_path / 'run/checkpoint-6'} goes on with it" in again.err


def test_a_run_that_has_ended_does_not_go_on(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    assert llmtune("sft", *flags).code == 0
    log = (tmp_path / "run/logging.jsonl").read_text()
    again = llmtune("sft", *flags, "--resume_from_checkpoint", str(tmp_path / "run/checkpoint-6"))
    assert again.code == 0, again.err
    assert (tmp_path / "run/logging.jsonl").read_text() == log


def test_weights_alone_are_taken_from_a_checkpoint(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    assert llmtune("sft", *flags).code == 0
    start = ("--resume_from_checkpoint", str(tmp_path / "run/checkpoint-6"), "--resume_only_model")
    anew = [*without(flags, "--output_dir"), "--output_dir", str(tmp_path / "anew")]
    done = llmtune("sft", *anew, *start, "--learning_rate", "1e-20")
    assert done.code == 0, done.err
    assert len(losses(tmp_path / "anew")) == 6
    found, expected = (
        load_file(tmp_path / name / "checkpoint-6/adapter_model.safetensors") for name in ("anew", "run")
    )
    assert all(found[name].allclose(value, atol=1e-12) for name, value in expected.items())
    assert problem(tmp_path / "run/checkpoint-6") == ""


@pytest.mark.parametrize("ranks", [2, 1])
def test_a_run_goes_on_with_another_number_of_ranks(
    llmtune: Llmtune, flags: list[str], tmp_path: Path, ranks: int
) -> None:
    """With the same rows in each step, and the same optimizer; to rounding, not in bits."""
    flags = [*without(flags, "--gradient_accumulation_steps"), "--lora_dropout", "0", "--learning_rate", "1e-2"]

    def trained(name: str, count: int, *more: str) -> list[float]:
        words = ["sft", *without(flags, "--output_dir"), *more, "--gradient_accumulation_steps", str(4 // count)]
        words += ["--output_dir", str(tmp_path / name)] if not more else []
        place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        processes = [
            forked(
                words,
                {"OMP_NUM_THREADS": "1"}
                | ({k: str(v) for k, v in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()} if count > 1 else {}),
                tmp_path / f"{name}.log",
            )
            for rank in range(count)
        ]
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * count, (tmp_path / f"{name}.log").read_text()
        return losses(tmp_path / name)

    expected = trained("run", 3 - ranks)
    found = trained("run", ranks, "--resume_from_checkpoint", str(tmp_path / "run/checkpoint-4"))
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_run_that_is_stopped_before_its_first_step_says_so(
    llmtune: Llmtune, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmtune.data.report.DataReport.draw", interrupted)
    assert llmtune("sft", *flags).code == 130
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "interrupted"
