"""The main job on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import NAMES, Llmtune, llmtune_process
from safetensors.torch import load_file
from transformers.utils import is_flash_attn_2_available

from llmtune.testing.tiny import load_tiny, tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TRAINING = (
    *("--max_steps", "8", "--batch_size", "4", "--gradient_accumulation_steps", "1", "--learning_rate", "1e-2"),
    *("--logging_steps", "1", "--disable_tqdm", "--report_to", "none"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4-bit layers need inputs at least as wide as their blocks of 64."""
    return tiny_model(tmp_path_factory.mktemp("model"), hidden_size=128)


RUNS = {
    "lora bf16": "--dtype bf16",
    "lora fp32": "--dtype fp32",
    "dora": "--use_dora true",
    "lora+": "--lora_lr_ratio 4",
    "lora with whole layers": "--modules_to_save EMBEDDING LN",
    "longlora": "--sft_type longlora",
    "adalora": "--sft_type adalora --adalora_tfinal 3",
    "ia3": "--sft_type ia3",
    "vera": "--sft_type vera --vera_rank 32",
    "boft": "--sft_type boft --boft_n_butterfly_factor 2",
    "fourierft": "--sft_type fourierft --fourier_n_frequency 200",
    "llamapro": "--sft_type llamapro --llamapro_num_new_blocks 2",
    "adapter": "--sft_type adapter",
    "noise": "--neftune_noise_alpha 5",
    "full": "--sft_type full",
    "lisa": "--sft_type full --lisa_activated_layers 1 --lisa_step_interval 2",
    "galore": "--sft_type full --use_galore --galore_rank 16",
    "galore with 8-bit moments": "--sft_type full --use_galore --galore_rank 16 --optim adamw_8bit",
    "galore by parameter": "--sft_type full --use_galore --galore_optim_per_parameter --max_grad_norm 0",
    "q-galore": "--sft_type full --use_galore --galore_quantization --galore_proj_quant",
    "lora over 4 bits": "--quantization_bit 4 --dtype bf16",
    "lora over 8 bits": "--quantization_bit 8 --dtype fp16",
    "lora over hqq": "--quant_method hqq --quantization_bit 4",
    "longlora over 4 bits": "--sft_type longlora --quantization_bit 4",
    "adalora over 4 bits": "--sft_type adalora --quantization_bit 4",
    "ia3 over 4 bits": "--sft_type ia3 --quantization_bit 4",
    "vera over 4 bits": "--sft_type vera --vera_rank 32 --quantization_bit 4",
    "adapter over 4 bits": "--sft_type adapter --quantization_bit 4",
    "packed": "--packing --max_length 1024",
    "packed longlora": "--sft_type longlora --packing --max_length 1024",
    "streamed and packed": "--streaming --packing --max_length 1024",
}


@pytest.mark.parametrize("flags", [words.split() for words in RUNS.values()], ids=RUNS)
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


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flash_attention_2", "flex_attention"])
def test_packs_keep_their_samples_apart_on_the_gpu(model: Path, implementation: str, dtype: str) -> None:
    from llmtune_plugin_hf._isolation import check_isolation

    if implementation == "flash_attention_2" and (not is_flash_attn_2_available() or dtype == "fp32"):
        pytest.skip("flash-attn is not installed, or has no form for float32")
    loaded = load_tiny(model, dtype=dtype).model.to("cuda")
    loaded.set_attn_implementation(implementation)
    check_isolation(loaded)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_train_what_one_trains_with_the_same_rows_in_a_step(model: Path, tmp_path: Path) -> None:
    base = ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(model), "--dtype", "fp32")
    data = ("--dataset", "self-cognition#21", *NAMES, "--dataset_test_ratio", "0.2", "--lora_dropout", "0")
    loop = ("--learning_rate", "1e-2", "--max_steps", "6", "--eval_steps", "6", "--logging_steps", "1")
    output = ("--add_output_dir_suffix", "false", "--disable_tqdm", "--report_to", "none", "--output_dir")
    flags = ("sft", *base, *data, *loop)
    one, two = tmp_path / "one", tmp_path / "two"
    alone = llmtune_process(
        *flags, "--gradient_accumulation_steps", "4", *output, str(one), CUDA_VISIBLE_DEVICES="0", NPROC_PER_NODE="1"
    )
    pair = llmtune_process(
        *flags, "--gradient_accumulation_steps", "2", *output, str(two), CUDA_VISIBLE_DEVICES="0,1", NPROC_PER_NODE="2"
    )
    assert (alone.code, pair.code) == (0, 0), alone.err + pair.err
    record = json.loads((two / "run.json").read_text())
    assert record["plan"]["resolved"]["ddp_backend"]["value"] == "nccl"
    assert len(list(two.glob("checkpoint-6/rng_state_*.pth"))) == 2
    expected, found = (load_file(folder / "checkpoint-6/adapter_model.safetensors") for folder in (one, two))
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm(), name
    logs = [(folder / "logging.jsonl").read_text().splitlines() for folder in (one, two)]
    losses = [[line["eval_loss"] for line in map(json.loads, lines) if "eval_loss" in line] for lines in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
