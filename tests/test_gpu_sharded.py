"""Two GPUs over NCCL train what one trains: copies, FSDP2, DeepSpeed; skipped where there are fewer."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from command_line import NAMES, llmtune_process

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

STEPS = 20
RUN = (
    *("--model_type", "smollm2-135m-instruct", "--dataset", "self-cognition#40", *NAMES, "--dataset_test_ratio", "0.1"),
    *(
        "--max_steps",
        str(STEPS),
        "--logging_steps",
        "1",
        "--disable_tqdm",
        "--report_to",
        "none",
        "--max_length",
        "512",
    ),
    *("--eval_steps", "10", "--save_steps", "20", "--save_only_model", "false", "--add_output_dir_suffix", "false"),
    *("--micro_batch_tokens", "300", "--learning_rate", "1e-3"),
)
TUNERS = {
    "lora": ("--lora_dropout", "0", "--dtype", "fp32"),
    "full": ("--sft_type", "full", "--dtype", "fp32"),
    "lora bf16": ("--lora_dropout", "0", "--dtype", "bf16"),
}
WITHIN = {"lora": 1e-4, "full": 1e-4, "lora bf16": 2e-2}
WAYS = {
    "ddp": (),
    "fsdp": ("--fsdp", "full_shard auto_wrap"),
    "fsdp grad_op": ("--fsdp", "shard_grad_op"),
    "fsdp offload": ("--fsdp", "full_shard offload"),
    "zero2": ("--deepspeed", "default-zero2"),
    "zero3": ("--deepspeed", "default-zero3"),
    "zero3 offload": ("--deepspeed", "default-zero3-offload"),
}


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def train(folder: Path, tiny: Path, ranks: int, *flags: str) -> dict[int, float]:
    own = ("--model_id_or_path", str(tiny), "--output_dir", str(folder))
    gpus = {"NPROC_PER_NODE": "2"} if ranks == 2 else {"CUDA_VISIBLE_DEVICES": "0"}
    done = llmtune_process("sft", *RUN, *own, "--gradient_accumulation_steps", str(8 // ranks), *flags, **gpus)
    assert done.code == 0, done.err
    return losses(folder)


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, float]]:
    folder = tmp_path_factory.mktemp("alone")
    return {name: train(folder / name.replace(" ", "-"), tiny, 1, *flags) for name, flags in TUNERS.items()}


@pytest.mark.parametrize("tuner", TUNERS)
@pytest.mark.parametrize("way", WAYS)
def test_they_train_what_one_gpu_trains(
    way: str, tuner: str, alone: dict[str, dict[int, float]], tiny: Path, tmp_path: Path
) -> None:
    if "zero" in way and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    found = train(tmp_path / "run", tiny, 2, *TUNERS[tuner], *WAYS[way])
    assert found.keys() == alone[tuner].keys()
    assert max(abs(found[step] - loss) for step, loss in alone[tuner].items()) < WITHIN[tuner]
