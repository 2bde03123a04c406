"""The main job on the real SmolLM2 weights: train, look at what was written, ask the trained model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import NAMES, Result, llmtune_process
from safetensors import safe_open

MODEL = ("--model_type", "smollm2-135m-instruct")
TRAINING = (
    *("--learning_rate", "3e-3", "--batch_size", "8", "--gradient_accumulation_steps", "1", "--max_steps", "14"),
    *("--gradient_checkpointing", "false", "--lora_dropout", "0", "--eval_steps", "7", "--logging_steps", "1"),
)
GREEDY = ("--do_sample", "false", "--max_new_tokens", "40")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Train once for all tests of this module; the model comes from whatever hub answers."""
    output = tmp_path_factory.mktemp("output")
    result = llmtune_process("sft", *MODEL, "--dataset", "self-cognition", *NAMES, *TRAINING, "--output_dir", output)
    assert result.code == 0, result.err
    return next(output.glob("smollm2-135m-instruct/v0-*")), result


def test_training_lowers_the_loss_and_validates(trained: tuple[Path, Result]) -> None:
    lines = [json.loads(line) for line in (trained[0] / "logging.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    validation = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert [step for step, _ in validation] == [7, 14]
    assert validation[1][1] < validation[0][1]


def test_the_run_folder_holds_what_the_readme_says(trained: tuple[Path, Result]) -> None:
    folder = trained[0]
    run = json.loads((folder / "run.json").read_text())
    assert run["state"] == "finished"
    assert run["plan"]["choices"]["tuner"] == "lora::lora"
    assert "learning_rate" not in run["plan"]["resolved"]  # the user gave it
    assert run["plan"]["resolved"]["save_steps"] == {"value": 7, "rule": "--eval_steps"}
    assert json.loads((folder / "data_report.json").read_text())["read"] == 300
    assert json.loads((folder / "sft_args.json").read_text())["model_name"] == ["小智", "Ada"]
    assert {path.name for path in (folder / "images").iterdir()} >= {"loss.png", "learning_rate.png", "eval_loss.png"}
    assert list((folder / "runs").iterdir())
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-7", "checkpoint-14"}


def test_a_checkpoint_holds_the_adapter_and_no_base_weights(trained: tuple[Path, Result]) -> None:
    with safe_open(trained[0] / "checkpoint-14" / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    assert len(names) == 30 * 3 * 2  # layers, (q, k, v), (A, B)
    assert all("lora_" in name for name in names)


def test_sft_ends_with_the_best_checkpoint_and_the_line_to_try_it(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert result.out.rstrip().endswith(f"try it: llmtune infer --ckpt_dir {folder / 'checkpoint-14'}")


def chat(folder: Path, *messages: str) -> str:
    command = [sys.executable, "-m", "llmtune", "infer", "--ckpt_dir", str(folder), *GREEDY]
    done = subprocess.run(command, input="\n".join(messages), capture_output=True, text=True, check=True)
    return done.stdout


def test_the_trained_model_knows_its_name_and_still_knows_paris(trained: tuple[Path, Result]) -> None:
    """The questions are not in the dataset."""
    checkpoint = trained[0] / "checkpoint-14"
    questions = ("Tell me your name and who built you.", "Please introduce yourself to our new colleagues.")
    shown = chat(checkpoint, *questions, "clear", "What is the capital of France?", "exit")
    answers = [line for line in shown.splitlines() if line.strip()]
    assert sum("Ada" in line for line in answers) >= 2
    assert "Paris" in answers[-1]


def test_a_dataset_is_answered_into_a_file(trained: tuple[Path, Result], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(
        '{"query": "Tell me your name and who built you."}\n{"query": "2+2?", "response": "4"}\n'
    )
    flags = ("--val_dataset", tmp_path / "questions.jsonl", "--result_dir", tmp_path / "results")
    result = llmtune_process("infer", "--ckpt_dir", trained[0] / "checkpoint-14", *flags, *GREEDY)
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in next((tmp_path / "results").glob("*.jsonl")).read_text().splitlines()]
    assert [row["label"] for row in rows] == [None, "4"]
    assert "Ada" in rows[0]["response"]


def test_inspect_shows_tokens_and_targets_without_weights() -> None:
    result = llmtune_process("inspect", *MODEL, "--dataset", "self-cognition", *NAMES, COLUMNS="200")
    assert result.code == 0, result.err
    assert "<|im_start|>user" in result.out
    assert "Ada" in result.out
    assert "trained" in result.out
