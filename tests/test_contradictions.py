"""What flags say against each other is found before anything is loaded, and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from command_line import Llmtune
from configuring import configured, installed

from llmtune.errors import UsageError
from llmtune.pipelines import prepare
from llmtune.pipelines.prepare import choose

MODEL = ("--model_type", "smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sft --freeze_parameters 0.5", "--freeze_parameters works with --sft_type full only, found --sft_type lora"),
        (
            "sft --additional_trainable_parameters lm_head",
            "--additional_trainable_parameters works with --sft_type full only, found --sft_type lora",
        ),
        (
            "sft --tuner_backend unsloth",
            "--tuner_backend unsloth is not available yet: the package unsloth needs an NVIDIA GPU and transformers up "
            f"to 5.17 (here: {transformers.__version__}), and replaces code of transformers while it is imported; "
            "use peft",
        ),
        ("sft --resume_only_model", "--resume_only_model needs --resume_from_checkpoint"),
        ("sft --max_steps 5 --warmup_steps 6", "--warmup_steps 6 is more than --max_steps 5"),
        ("sft --quant_method bnb", "--quant_method has no effect without --quantization_bit"),
        ("infer --quant_method bnb", "--quant_method has no effect without --quantization_bit"),
        ("sft --rope_scaling linear", "--rope_scaling needs --max_length, the length to scale to"),
        ("infer --rope_scaling dynamic", "--rope_scaling needs --max_length, the length to scale to"),
        (
            "sft --val_dataset a --dataset_test_ratio 0.2",
            "--dataset_test_ratio has no effect with --val_dataset; give one of them",
        ),
        (
            "sft --train_dataset_mix_ratio 0.5 --train_dataset_mix_ds",
            "--train_dataset_mix_ratio needs --train_dataset_mix_ds",
        ),
        ("sft --streaming", "--streaming needs --max_steps: a stream has no length"),
        ("sft --streaming --max_steps 5 --lazy_tokenize", "--streaming and --lazy_tokenize exclude each other"),
        (
            "sft --streaming --max_steps 5 --train_dataset_mix_ratio 1",
            "--streaming and --train_dataset_mix_ratio exclude each other",
        ),
        (
            "sft --streaming --max_steps 5 --train_dataset_sample 5",
            "--train_dataset_sample needs to know all rows; with --streaming write --dataset NAME#500",
        ),
        ("sft --streaming_val_size 5", "--streaming_val_size needs --streaming"),
        (
            "sft --lazy_tokenize --packing",
            "--packing needs to know how long rows are; with --lazy_tokenize nobody does",
        ),
        (
            "sft --lazy_tokenize --truncation_strategy split",
            "--truncation_strategy split makes several rows of one, which --lazy_tokenize cannot",
        ),
        ("sft --dataset a --interleave_prob 0.5 0.5", "--interleave_prob has 2 values for 1 datasets"),
        ("sft --dataset a b --interleave_prob 0.5 0", "--interleave_prob takes values above 0"),
        ("sft --packing --max_length -1", "--packing needs --max_length, the length to pack to"),
        ("sft --metric mine", "--metric has no effect without --predict_with_generate true"),
        (
            "sft --predict_with_generate --evaluation_strategy no",
            "--predict_with_generate needs evaluations; --evaluation_strategy no has none",
        ),
        (
            "sft --predict_with_generate --streaming --max_steps 5",
            "--predict_with_generate needs rows: with --streaming give --val_dataset or --streaming_val_size",
        ),
        ("sft --deepspeed default-zero2 --fsdp full_shard", "--deepspeed and --fsdp exclude each other"),
        ("sft --fsdp_config {}", "--fsdp_config needs --fsdp"),
        (
            "sft --sequence_parallel_size 2",
            "--sequence_parallel_size 2 does not divide the 1 processes of the run",
        ),
        ("deploy --ssl_keyfile k", "--ssl_keyfile and --ssl_certfile belong together"),
        ("deploy --ssl_certfile c", "--ssl_keyfile and --ssl_certfile belong together"),
        ("eval --eval_url http://x/v1", "--eval_url needs --eval_is_chat_model true or false"),
        ("export --push_to_hub", "--push_to_hub needs --hub_model_id"),
        ("sft --push_to_hub --offline", "--push_to_hub uploads, and --offline opens no connection"),
        (
            "sft --push_to_hub --save_strategy no",
            "--push_to_hub uploads checkpoints, and --save_strategy no writes none",
        ),
        (
            "sft --push_to_hub --push_hub_strategy checkpoint --save_only_model true",
            "--push_hub_strategy checkpoint uploads what resuming needs, and --save_only_model true leaves it out",
        ),
        (
            "sft --push_to_hub --hub_model_id a/b/c",
            "--hub_model_id takes NAME or OWNER/NAME of letters, digits, '.', '_' and '-', found 'a/b/c'",
        ),
        (
            "infer --hub_token x",
            "--hub_token is for uploads; what is private is fetched with MODELSCOPE_API_TOKEN or HF_TOKEN",
        ),
        (
            "infer --eval_human true --val_dataset a",
            "--eval_human true chats; --dataset and --val_dataset are answered with --eval_human false",
        ),
        ("sft --use_hf true --hub modelscope", "--use_hf true and --hub modelscope name two hubs; give one of them"),
        ("infer --train_dataset_sample 5", "--train_dataset_sample has no effect here: it belongs to training"),
        ("inspect --dataset_test_ratio 0.5", "--dataset_test_ratio has no effect here: it belongs to training"),
        ("inspect --max_dropped_ratio 0.5", "--max_dropped_ratio has no effect here: it belongs to training"),
    ],
)
def test_a_contradiction_is_one_line(line: str, problem: str) -> None:
    assert problem in configured(*line.split()).problems


@pytest.mark.parametrize(
    "line",
    [
        "sft",
        "sft --freeze_parameters 0 --additional_trainable_parameters",
        "sft --sft_type full --freeze_parameters 0.5 --additional_trainable_parameters lm_head",
        "pt --freeze_parameters 0.5",
        "sft --max_steps 5 --warmup_steps 5",
        "sft --warmup_steps 6",
        "sft --quant_method bnb --quantization_bit 4",
        "sft --val_dataset a --dataset_test_ratio 0.01",
        "sft --val_dataset a --dataset_test_ratio 0",
        "sft --dataset_test_ratio 0.2",
        "export --quant_method awq",
        "sft --packing",
        "sft --train_dataset_mix_ratio 0.5",
        "sft --streaming --max_steps 10 --packing",
        "sft --dataset a b --interleave_prob 0.3 0.7",
        "sft --rope_scaling linear --max_length 4096",
        "sft --push_to_hub --hub_model_id My.Model_1-a",
        "sft --push_to_hub --hub_private_repo --push_hub_strategy all_checkpoints",
        "sft --push_to_hub false --hub_model_id a/b/c --hub_token x --push_hub_strategy end --save_strategy no",
        "export --push_to_hub --hub_model_id owner/name",
        "sft --resume_only_model --resume_from_checkpoint c",
        "sft --deepspeed default-zero2",
        "sft --fsdp full_shard --fsdp_config {}",
    ],
)
def test_what_goes_together_is_no_problem(line: str) -> None:
    assert configured(*line.split()).problems == ()


@pytest.mark.parametrize(
    "line",
    [
        "deploy --ssl_keyfile k --ssl_certfile c",
        "eval --eval_url http://x/v1 --eval_is_chat_model true",
    ],
)
def test_what_is_missing_does_not_contradict(line: str) -> None:
    """Flags that are not available yet are refused for that reason alone."""
    problems = configured(*line.split()).problems
    assert {problem.endswith(" is not available yet") for problem in problems} == {True}


@pytest.mark.parametrize(("processes", "fits"), [("4", True), ("2", True), ("3", False), ("1", False)])
def test_processes_share_a_sequence_evenly(monkeypatch: pytest.MonkeyPatch, processes: str, fits: bool) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", processes)
    problem = f"--sequence_parallel_size 2 does not divide the {processes} processes of the run"
    assert (problem not in configured("sft", "--sequence_parallel_size", "2").problems) is fits


@pytest.mark.parametrize(
    ("command", "words", "problem"),
    [
        ("sft", ["--max_length", "0"], "--max_length: must be -1 (no limit) or at least 1"),
        ("sft", ["--save_safetensors", "false"], "--save_safetensors: must be true"),
        ("infer", ["--save_safetensors", "false"], "--save_safetensors: must be true"),
        ("sft", ["--device_max_memory", "10"], "--device_max_memory: must be sizes such as 10GB"),
        ("eval", ["--eval_limit", "ten"], "--eval_limit: must be a number of rows or a slice"),
        ("deploy", ["--port", "70000"], "--port: input should be less than or equal to 65535"),
    ],
)
def test_a_value_that_no_run_can_have_is_refused(command: str, words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        configured(command, *words)
    assert problem in caught.value.problem


# --- what plugins and this machine say against the flags ------------------------------------------


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        choose(configured("sft", *MODEL, *words), installed())
    return caught.value.problem


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--quantization_bit", "3"], "--quantization_bit 3: bnb has 4, 8"),
        (
            ["--quantization_bit", "4", "--sft_type", "full"],
            "--sft_type full cannot train a quantized model; use lora, or --quantization_bit 0",
        ),
    ],
)
def test_what_a_plugin_cannot_do_is_one_line(words: list[str], problem: str) -> None:
    assert problem in refused(*words)


@pytest.mark.parametrize(("devices", "sizes"), [(2, ["1GB"]), (1, ["1GB", "2GB"])])
def test_each_device_gets_one_size(monkeypatch: pytest.MonkeyPatch, devices: int, sizes: list[str]) -> None:
    monkeypatch.setattr(prepare, "device_count", lambda: devices)
    assert f"--device_max_memory has {len(sizes)} values for {devices} devices" in refused(
        "--device_max_memory", *sizes
    )


def test_as_many_sizes_as_devices_are_not_contradicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "device_count", lambda: 2)
    assert "--device_max_memory has" not in refused("--device_max_memory", "1GB", "2GB")


def test_all_mistakes_are_one_error(llmtune: Llmtune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = llmtune(
        *("sft", "--model_type", "smollm2-135m-instuct", "--dataset", "self-cogniton", "also-unknwon"),
        *("--sft_type", "lroa", "--template_type", "chatlm", "--quantization_bit", "3", "--push_to_hub", "--offline"),
        *("--resume_only_model", "--max_steps", "5", "--warmup_steps", "6"),
    )
    assert (result.code, result.err.count("error:"), list(tmp_path.iterdir())) == (2, 1, [])
    expected = (
        "unknown model 'smollm2-135m-instuct'",
        "did you mean smollm2-135m-instruct",
        "unknown dataset 'self-cogniton'",
        "did you mean self-cognition",
        "unknown dataset 'also-unknwon'",
        "--sft_type: unknown tuner 'lroa'",
        "did you mean lora",
        "unknown template 'chatlm'",
        "--quantization_bit 3: bnb has 4, 8",
        "--push_to_hub uploads, and --offline opens no connection",
        "--resume_only_model needs --resume_from_checkpoint",
        "--warmup_steps 6 is more than --max_steps 5",
    )
    assert [part for part in expected if part not in result.err] == []


def test_wrong_values_and_contradictions_are_one_error(llmtune: Llmtune) -> None:
    words = ("--push_to_hub", "--offline", "--packing", "--max_length", "-1")
    result = llmtune("sft", "--seed", "x", "--batch_size", "0", *words)
    assert (result.code, result.err.count("error:")) == (2, 1)
    expected = (
        "--seed",
        "--batch_size",
        "--push_to_hub uploads, and --offline opens no connection",
        "--packing needs --max_length",
    )
    assert [part for part in expected if part not in result.err] == []


def test_a_missing_file_does_not_hide_in_the_cache_of_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        choose(configured("sft", *MODEL, "--dataset", str(tmp_path / "data.jsonl")), installed())
