"""The main job on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import NAMES, Llmtune, llmtune_process
from native_models import tiny_config
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import is_flash_attn_2_available

from llmtune.testing.tiny import load_tiny, tiny_model
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._forward import Forward
from llmtune_plugin_hf._isolation import keeps_apart
from llmtune_plugin_hf._varlen import VarlenAttention

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
    "padded": "--padding_free false --gradient_checkpointing false",
    "in small parts": "--micro_batch_tokens 600",
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
@pytest.mark.parametrize("implementation", ["eager", "varlen", "flash_attention_2", "flex_attention"])
def test_samples_in_one_sequence_stay_apart_on_the_gpu(model: Path, implementation: str, dtype: str) -> None:
    if implementation == "flash_attention_2" and (not is_flash_attn_2_available() or dtype == "fp32"):
        pytest.skip("flash-attn is not installed, or has no form for float32")
    loaded, attention = load_tiny(model, dtype=dtype).model.to("cuda"), VarlenAttention()
    if implementation == "varlen":
        assert attention.install(loaded)
    else:
        loaded.set_attn_implementation(implementation)
    forward = Forward(loaded, attention, torch.device("cuda"), pin_memory=True)
    assert keeps_apart(loaded, forward, Collate(0, padding_free=implementation == "varlen"))


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM", "Qwen3ForCausalLM"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.bfloat16, 3e-2), (torch.float32, 1e-4)])
def test_a_sample_has_the_loss_and_gradients_that_it_has_alone(kind: str, dtype: torch.dtype, close: float) -> None:
    """Sliding windows shorter than the samples, and heads that share keys; bf16 goes through torch's varlen_attn."""
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randint(3, 60, (size,), generator=generator).tolist() for size in (70, 9, 130, 33)]
    rows = [{"input_ids": one, "labels": one} for one in samples]
    losses, gradients = [], []
    for padding_free in (True, False):
        torch.manual_seed(0)
        loaded = AutoModelForCausalLM.from_config(tiny_config(kind)).to("cuda", dtype)
        attention = VarlenAttention()
        assert attention.install(loaded)
        forward = Forward(loaded, attention, torch.device("cuda"), pin_memory=False)
        collate = Collate(0, padding_free=padding_free)
        for some in [rows] if padding_free else [[row] for row in rows]:
            batch = collate(some)
            with forward.samples_of(batch):
                loss, _ = forward.loss(loaded, batch)
                loss.backward()
            losses.append(loss.item())
        gradients.append(torch.cat([one.grad.flatten().float() for one in loaded.parameters() if one.grad is not None]))
    assert losses[0] == pytest.approx(sum(losses[1:]), rel=close)
    assert (gradients[0] - gradients[1]).norm() <= close * gradients[1].norm()


def test_a_step_that_memory_does_not_hold_is_computed_in_smaller_parts(
    llmtune: Llmtune, model: Path, tmp_path: Path
) -> None:
    """A million tokens at once would take more than a thousandth of the memory."""
    base = ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(model), "--dtype", "fp32")
    data = ("--dataset", "self-cognition", *NAMES, "--dataset_test_ratio", "0", "--lora_dropout", "0")
    loop = ("--max_steps", "2", "--batch_size", "80", "--gradient_accumulation_steps", "1", "--logging_steps", "1")
    output = ("--add_output_dir_suffix", "false", "--disable_tqdm", "--report_to", "none", "--output_dir")
    flags = ("sft", *base, *data, *loop, "--gradient_checkpointing", "false")
    done = llmtune(*flags, "--micro_batch_tokens", "2000", *output, str(tmp_path / "fits"))
    assert done.code == 0, done.err
    lines = []
    try:
        fraction = ("--gpu_memory_fraction", "0.001", "--micro_batch_tokens", "1000000")
        done = llmtune(*flags, *fraction, *output, str(tmp_path / "lowered"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert done.code == 0, done.err
    assert "memory did not hold step 1" in done.out, done.out
    for name in ("fits", "lowered"):
        log = (tmp_path / name / "logging.jsonl").read_text().splitlines()
        lines.append([json.loads(line)["loss"] for line in log])
    assert lines[1] == pytest.approx(lines[0], rel=1e-5)


def test_what_is_computed_at_once_is_chosen_by_what_memory_holds(llmtune: Llmtune, model: Path, tmp_path: Path) -> None:
    """With little memory activations are computed again; with less, fewer tokens fit."""
    base = ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(model), "--disable_tqdm")
    data = ("--dataset", "self-cognition", *NAMES, "--output_dir", str(tmp_path), "--save_strategy", "no")
    chosen = []
    try:
        for fraction in (1.0, 0.002, 0.0008):
            flags = ("--max_steps", "1", "--batch_size", "64", "--gpu_memory_fraction", str(fraction))
            done = llmtune("sft", *base, *data, *flags)
            assert done.code == 0, done.err
            print(fraction, line := next(line for line in done.out.splitlines() if "a forward pass computes" in line))
            chosen.append(int(line.split("up to ")[1].split(" ")[0]))
            torch.cuda.empty_cache()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert chosen[0] > chosen[2]


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
