"""Merging an adapter: a whole model that plain transformers loads, with the same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import Llmtune
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from llmtune.testing import create, load_tiny, run_context, tiny_model
from llmtune.train import checkpoint


@pytest.fixture
def trained(llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> Path:
    result = llmtune("sft", *tiny_flags, "--learning_rate", "0.05")
    assert result.code == 0, result.err
    return next(tmp_path.glob("output/*/*/checkpoint-2"))


@pytest.mark.parametrize("command", [["merge-lora"], ["export", "--merge_lora", "true"]], ids=["merge-lora", "export"])
def test_the_merged_model_is_plain_and_gives_the_same_logits(
    llmtune: Llmtune, trained: Path, tiny: Path, command: list[str]
) -> None:
    result = llmtune(*command, "--ckpt_dir", str(trained))
    assert result.code == 0, result.err
    merged = trained.with_name("checkpoint-2-merged")
    assert not checkpoint.problem(merged)
    assert not list(merged.glob("adapter*"))
    with safe_open(merged / "model.safetensors", "pt") as tensors:
        assert not [name for name in tensors.keys() if "lora" in name]  # noqa: SIM118 - not a mapping
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, trained).eval()
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        expected, found = adapted(ids).logits, plain(ids).logits
        with adapted.disable_adapter():
            untrained = adapted(ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - untrained).abs().max() > 1e-3  # the adapter has learned something to merge


def test_a_merged_model_is_a_checkpoint_of_its_own(llmtune: Llmtune, trained: Path, tmp_path: Path) -> None:
    assert llmtune("merge-lora", "--ckpt_dir", str(trained)).code == 0
    merged = trained.with_name("checkpoint-2-merged")
    assert json.loads((merged / "sft_args.json").read_text())["sft_type"] == "full"
    (tmp_path / "ask.jsonl").write_text('{"query": "Who are you?"}\n')
    answer = ("--val_dataset", str(tmp_path / "ask.jsonl"), "--do_sample", "false", "--max_new_tokens", "8")
    texts = []
    for folder, flags in ((merged, ()), (trained, ()), (trained, ("--merge_lora", "true"))):
        result = llmtune("infer", "--ckpt_dir", str(folder), *answer, *flags, "--result_dir", str(tmp_path / "r"))
        assert result.code == 0, result.err
        texts.append(result.out.partition("[response]")[2].partition("1 answers")[0])
    assert texts[0] == texts[1] == texts[2]


def test_over_a_base_in_few_bits_the_merged_model_answers_as_trained(
    llmtune: Llmtune, tiny: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    wide = tiny_model(tmp_path / "wide", hidden_size=64)  # bitsandbytes answers in blocks of 64 weights of a row
    flags = [str(wide) if word == str(tiny) else word for word in tiny_flags]
    assert llmtune("sft", *flags, "--learning_rate", "0.05", "--quantization_bit", "4").code == 0
    checkpoint_2 = next(tmp_path.glob("output/*/*/checkpoint-2"))
    result = llmtune("export", "--merge_lora", "true", "--ckpt_dir", str(checkpoint_2))
    assert result.code == 0, result.err
    assert "warning: the adapter was trained over a base in 4 bits" in result.err
    assert "--quantization_bit 0 merges into the base as it was published" in result.err
    merged = checkpoint_2.with_name("checkpoint-2-merged")
    assert json.loads((merged / "sft_args.json").read_text())["quantization_bit"] == 0
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval()
    quantizer = create("quantizer", "bnb", {}, run_context(quantization_bit=4))
    adapted = PeftModel.from_pretrained(load_tiny(wide, kwargs=quantizer.load_kwargs("fp32")).model, checkpoint_2)
    ids = torch.arange(40).reshape(2, 20)
    for module in adapted.train().modules():  # in eval, bitsandbytes has a kernel for CPUs that rounds more
        module.training = not isinstance(module, torch.nn.Dropout)
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("command", "part"), [(["merge-lora"], "--ckpt_dir"), (["export", "--model_type", "smollm2-135m"], "--merge_lora")]
)
def test_nothing_to_merge_says_what_is_missing(llmtune: Llmtune, command: list[str], part: str) -> None:
    result = llmtune(*command)
    assert result.code == 2
    assert part in result.err
