"""The main job on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import NAMES, Llmtune

from llmtune.testing.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TRAINING = (
    *("--max_steps", "8", "--batch_size", "4", "--gradient_accumulation_steps", "1", "--learning_rate", "1e-2"),
    *("--logging_steps", "1", "--disable_tqdm", "--report_to", "none"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4-bit layers need inputs at least as wide as their blocks of 64."""
    return tiny_model(tmp_path_factory.mktemp("model"), hidden_size=128)


@pytest.mark.parametrize(
    "flags",
    [
        ["--dtype", "bf16"],
        ["--dtype", "fp32"],
        ["--sft_type", "full"],
        ["--quantization_bit", "4", "--dtype", "bf16"],
        ["--quantization_bit", "8", "--dtype", "fp16"],
    ],
    ids=["lora bf16", "lora fp32", "full", "lora over 4 bits", "lora over 8 bits"],
)
def test_a_run_on_the_gpu_learns_saves_and_answers(
    llmtune: Llmtune, model: Path, tmp_path: Path, flags: list[str]
) -> None:

    base = ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(model))
    torch.cuda.reset_peak_memory_stats()
    result = llmtune(
        "sft", *base, "--dataset", "self-cognition", *NAMES, *TRAINING, *flags, "--output_dir", str(tmp_path)
    )
    assert result.code == 0, result.err
    assert torch.cuda.max_memory_allocated() > 0
    (checkpoint,) = tmp_path.rglob("checkpoint-8")
    lines = [json.loads(line) for line in (checkpoint.parent / "logging.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    (tmp_path / "ask.jsonl").write_text('{"query": "Who are you?"}\n{"query": "What is your name, please?"}\n')
    ask = (
        "--val_dataset",
        str(tmp_path / "ask.jsonl"),
        "--max_new_tokens",
        "4",
        "--result_dir",
        str(tmp_path / "result"),
    )
    answered = llmtune("infer", "--ckpt_dir", str(checkpoint), *ask)
    assert answered.code == 0, answered.err
