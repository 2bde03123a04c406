"""Model folders and names that would have been taken for something else, without a word or too late."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from command_line import Llmtune
from safetensors.torch import load_file, save_file

from llmtune.testing.tiny import tiny_model

FLAGS = ("--template_type", "chatml", "--dataset", "self-cognition#20", "--model_name", "a", "b")
FLAGS += ("--model_author", "c", "d")


@pytest.mark.parametrize("command", ["sft", "infer"])
def test_an_adapter_inside_of_the_folder_of_its_base_is_no_part_of_it(
    llmtune: Llmtune, tmp_path: Path, command: str
) -> None:
    folder = tiny_model(tmp_path / "model")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    flags = FLAGS if command == "sft" else FLAGS[:2]
    result = llmtune(command, "--model_id_or_path", str(folder), *flags)
    assert result.code == 2
    assert "holds a model and an adapter (adapter_config.json): which of them is meant?" in result.err
    assert "--ckpt_dir" in result.err


@pytest.mark.parametrize("more", [(), ("--dry_run",)])
def test_a_shard_that_is_missing_is_named_before_anything_takes_time(
    llmtune: Llmtune, tmp_path: Path, more: tuple[str, ...]
) -> None:
    folder = tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(tensors)}
    here = "model-00001-of-00002.safetensors"
    save_file({name: tensors[name] for name, file in files.items() if file == here}, folder / here, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    output = ("--output_dir", str(tmp_path / "out"))
    result = llmtune("sft", "--model_id_or_path", str(folder), *FLAGS, *output, *more)
    assert result.code == 2
    assert "lacks 1 of the 2 files of its weights, first model-00002-of-00002.safetensors" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("qlora", "--sft_type lora --quantization_bit 4"),
        ("QLoRA", "--sft_type lora --quantization_bit 4"),
        ("dora", "--sft_type lora --use_dora true"),
        ("rslora", "--sft_type lora --use_rslora true"),
        ("pissa", "--sft_type lora --init_lora_weights pissa"),
        ("loraplus", "--sft_type lora --lora_lr_ratio 16"),
        ("qgalore", "--sft_type full --use_galore true --galore_quantization true"),
        ("freeze", "--sft_type full --freeze_parameters 0.9"),
    ],
)
def test_what_others_call_a_tuner_is_advised_with_all_its_flags(
    llmtune: Llmtune, tiny: Path, tmp_path: Path, name: str, flags: str
) -> None:
    model = ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(tiny), *FLAGS[2:], "--dry_run")
    refused = llmtune("sft", *model, "--sft_type", name)
    assert (refused.code, f"write {flags}" in refused.err) == (2, True)
    advised = llmtune("sft", *model, *shlex.split(flags))
    assert advised.code == 0, advised.err
    assert "training: 1 process on the CPU with " in advised.out
