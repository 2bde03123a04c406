"""16 rows of different lengths are one step: its gradients are the same however they are computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from command_line import Llmtune
from forked import forked_ranks
from safetensors.torch import load_file

from llmtune.cli.main import main

WRITES_GRADIENTS = """
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from llmtune.api import hookimpl

FOLDER, DTYPE = Path(__file__).parent, torch.float32


@hookimpl
def llmtune_model_loaded(loaded, run):
    loaded.model.to(DTYPE)

    def write(optimizer, *arguments):
        handle.remove()
        if run.rank == 0:
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            gradients = {str(number): one.grad.clone() for number, one in enumerate(parameters)}
            save_file(gradients, FOLDER / "gradients.safetensors")

    handle = register_optimizer_step_pre_hook(write)
"""

STEP = (
    *("--model_type", "smollm2-135m-instruct", "--dtype", "fp32", "--dataset_test_ratio", "0", "--max_steps", "1"),
    *("--save_strategy", "no", "--report_to", "none", "--max_grad_norm", "0", "--max_length", "512"),
)
WAYS = {
    "batch of 16": ("--batch_size", "16", "--gradient_accumulation_steps", "1"),
    "16 accumulations": ("--batch_size", "1", "--gradient_accumulation_steps", "16"),
    "small micro-batches": ("--micro_batch_tokens", "500"),
    "recomputed": ("--micro_batch_tokens", "1000", "--gradient_checkpointing", "true"),
    "padded": ("--padding_free", "false", "--batch_size", "4", "--gradient_accumulation_steps", "4"),
    "row by row": ("--padding_free", "false", "--batch_size", "1", "--gradient_accumulation_steps", "16"),
    "packed": ("--packing", "true", "--batch_size", "16", "--gradient_accumulation_steps", "1"),
    "packed and padded": (
        *("--packing", "true", "--padding_free", "false"),
        *("--batch_size", "4", "--gradient_accumulation_steps", "4"),
    ),
}
TUNERS = {
    "lora": ("--sft_type", "lora", "--lora_dropout", "0", "--target_modules", "ALL"),
    "full": ("--sft_type", "full"),
    "loss_scale": (
        *("--sft_type", "lora", "--lora_dropout", "0", "--target_modules", "ALL"),
        *("--use_loss_scale", "true", "--loss_scale_config_path"),
    ),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 conversations of 130 to 500 tokens, some with words that --use_loss_scale weighs."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Say it {number} times."},
                {"role": "assistant", "content": " ".join(["Thought: it"] * (1 + 2 * number))},
            ]
        }
        for number in range(16)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    weights = path.with_name("weights.json")
    weights.write_text(json.dumps({"Thought:": [3.0, 0.5]}), encoding="utf-8")
    return path


def flags(
    rows: Path, tiny: Path, tuner: str, tmp_path: Path, way: Sequence[str], dtype: torch.dtype = torch.float32
) -> list[str]:
    plugin = tmp_path / "gradients.py"
    plugin.write_text(WRITES_GRADIENTS.replace("torch.float32", str(dtype)), encoding="utf-8")
    weights = [str(rows.with_name("weights.json"))] if tuner == "loss_scale" else []
    base = [*STEP, "--model_id_or_path", str(tiny), "--dataset", str(rows), "--output_dir", str(tmp_path / "run")]
    return ["sft", *base, *TUNERS[tuner], *weights, *way, "--custom_register_path", str(plugin)]


def gradients(tmp_path: Path) -> dict[str, torch.Tensor]:
    return load_file(tmp_path / "gradients.safetensors")


@pytest.fixture(scope="module")
def expected(rows: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Tuner -> gradients of the step, row by row in float64: one float32 product over 16 rows is itself off by 1e-6."""
    found = {}
    for tuner in TUNERS:
        folder = tmp_path_factory.mktemp(tuner)
        assert main(flags(rows, tiny, tuner, folder, WAYS["row by row"], torch.float64)) == 0
        found[tuner] = gradients(folder)
    return found


def check_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert any(value.abs().max() > 1e-4 for value in expected.values()), "there is no gradient"
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert (found[name].double() - value).norm() <= 1e-6 * value.norm(), name


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("way", WAYS)
def test_one_process(
    llmtune: Llmtune, rows: Path, tiny: Path, expected: dict[str, dict], tuner: str, way: str, tmp_path: Path
) -> None:
    done = llmtune(*flags(rows, tiny, tuner, tmp_path, WAYS[way]))
    assert done.code == 0, done.err
    check_same(gradients(tmp_path), expected[tuner])


def run(words: Sequence[str], ranks: int, tmp_path: Path) -> None:
    """Run a command in several processes."""
    log = tmp_path / "log"
    processes = forked_ranks(words, ranks, log)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * ranks, log.read_text()[-3000:]


@pytest.mark.parametrize(("ranks", "tuner"), [(2, "lora"), (2, "full"), (4, "loss_scale"), (4, "full")])
def test_several_processes(
    rows: Path, tiny: Path, expected: dict[str, dict], ranks: int, tuner: str, tmp_path: Path
) -> None:
    way = ("--batch_size", "1", "--gradient_accumulation_steps", str(16 // ranks), "--micro_batch_tokens", "600")
    run(flags(rows, tiny, tuner, tmp_path, way), ranks, tmp_path)
    check_same(gradients(tmp_path), expected[tuner])


@pytest.mark.parametrize(("ranks", "shared", "tuner"), [(2, 2, "full"), (3, 3, "lora"), (4, 2, "loss_scale")])
def test_ranks_share_each_sequence(
    rows: Path, tiny: Path, expected: dict[str, dict], ranks: int, shared: int, tuner: str, tmp_path: Path
) -> None:
    """The model has 4 heads: of three ranks the first has two of them."""
    each = str(16 * shared // ranks)
    way = ("--batch_size", "1", "--gradient_accumulation_steps", each, "--micro_batch_tokens", "600")
    words = flags(rows, tiny, tuner, tmp_path, (*way, "--sequence_parallel_size", str(shared)))
    run(words, ranks, tmp_path)
    check_same(gradients(tmp_path), expected[tuner])


def test_weights_of_tokens_change_the_gradients(expected: dict[str, dict]) -> None:
    assert any(not expected["lora"][name].allclose(value) for name, value in expected["loss_scale"].items())
