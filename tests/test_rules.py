"""Each rule for a value that the user left open, and that a run records which rule chose what."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Llmtune, Result
from configuring import configured, installed

from llmtune.config.build import add_options, build_config
from llmtune.config.commands import COMMANDS
from llmtune.config.flags import Given
from llmtune.errors import Problems, UsageError
from llmtune.model.device import auto_dtype
from llmtune.pipelines.behaviours import engine_name, find_behaviours
from llmtune.pipelines.prepare import apply
from llmtune.pipelines.rules import Rule, rules
from llmtune.plugins.catalogue import Catalogue, Entry, discover
from llmtune.plugins.entry_points import EntryPoint, installed_entry_points
from llmtune.specs import RunPlan

MODEL = "smollm2-135m-instruct"


def model_entry(**facts: Any) -> Entry:
    entry = installed().find("model", MODEL)
    return dataclasses.replace(entry, facts={**entry.facts, **facts})


def resolved(
    command: str, *words: str, model: Entry | None = None, tuner: str | None = "lora", world_size: int = 1
) -> tuple[Any, dict[str, Any]]:
    """Return the configuration with its rules applied, and their record."""
    entry = None if tuner is None else installed().find("tuner", tuner)
    config = configured(command, *words)
    if config.given("deepspeed"):
        add_options(config, installed().find("extension", "deepspeed"))
    found = rules(config, model=model or model_entry(), template="chatml", tuner=entry, world_size=world_size)
    config, plan = apply(found, config, RunPlan(command=command))
    return config, plan.resolved


@pytest.mark.parametrize(
    ("line", "flag", "value", "reason"),
    [
        ("sft", "save_steps", 50, "--eval_steps"),
        ("sft --eval_steps 7", "save_steps", 7, "--eval_steps"),
        ("pt", "save_steps", 500, "--eval_steps"),
        ("sft", "eval_batch_size", 1, "--batch_size"),
        ("sft --batch_size 4", "eval_batch_size", 4, "--batch_size"),
        ("sft --batch_size 4 --predict_with_generate", "eval_batch_size", 1, "--predict_with_generate"),
        ("sft", "save_only_model", False, "true for tuners that save whole models, and with --deepspeed"),
        ("sft --deepspeed default-zero2", "save_only_model", True, "with --deepspeed"),
        ("sft", "lazy_tokenize", False, "a text model"),
        ("sft", "dataset_seed", 42, "--seed"),
        ("sft --seed 7", "dataset_seed", 7, "--seed"),
        ("infer --seed 8", "dataset_seed", 8, "--seed"),
        ("sft", "hub_model_id", f"{MODEL}-lora", "<model_type>-<sft_type>"),
        ("sft", "template_type", "chatml", f"the template of {MODEL}"),
        ("infer", "template_type", "chatml", f"the template of {MODEL}"),
        ("infer", "eval_human", True, "no dataset was given"),
        ("infer --dataset a", "eval_human", False, "a dataset was given"),
        ("infer --val_dataset a", "eval_human", False, "a dataset was given"),
        ("infer", "overwrite_generation_config", False, "--ckpt_dir was not given"),
        ("infer", "merge_device_map", "cpu", "saves GPU memory"),
        ("rlhf", "beta", 0.1, "--rlhf_type dpo"),
        *((f"rlhf --rlhf_type {method}", "beta", 0.1, f"--rlhf_type {method}") for method in ("orpo", "kto", "cpo")),
        ("rlhf --rlhf_type simpo", "beta", 2.0, "--rlhf_type simpo"),
        ("rlhf", "loss_type", "sigmoid", "--rlhf_type dpo"),
        ("rlhf --rlhf_type simpo", "loss_type", "simpo", "--rlhf_type simpo"),
        ("rlhf --rlhf_type kto", "loss_type", "kto", "--rlhf_type kto"),
        ("rlhf --rlhf_type cpo", "loss_type", "sigmoid", "--rlhf_type cpo"),
        ("rlhf", "ref_model_type", MODEL, "the trained model"),
        ("rlhf --rlhf_type kto", "ref_model_type", MODEL, "the trained model"),
    ],
)
def test_a_value_that_was_left_open_follows_its_rule(line: str, flag: str, value: Any, reason: str) -> None:
    config, record = resolved(*line.split())
    assert (config.get(flag), record[flag]["value"], reason in record[flag]["rule"]) == (value, value, True)


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("sft --save_steps 3", "save_steps"),
        ("sft --eval_batch_size 3 --predict_with_generate", "eval_batch_size"),
        ("sft --save_only_model false --deepspeed default-zero2", "save_only_model"),
        ("sft --dataset_seed 0", "dataset_seed"),
        ("sft --dtype fp16", "dtype"),
        ("sft --learning_rate 3e-4", "learning_rate"),
        ("sft --gradient_accumulation_steps 3", "gradient_accumulation_steps"),
        ("sft --dataloader_num_workers 0", "dataloader_num_workers"),
        ("sft --lazy_tokenize false", "lazy_tokenize"),
        ("infer --eval_human true --dataset a", "eval_human"),
        ("rlhf --rlhf_type simpo --beta 0.3", "beta"),
    ],
)
def test_a_value_that_the_user_gave_stays_and_no_rule_is_recorded(line: str, flag: str) -> None:
    config, record = resolved(*line.split())
    assert (config.get(flag), flag in record) == (configured(*line.split()).get(flag), False)


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        *((f"rlhf --rlhf_type {method}", "ref_model_type") for method in ("cpo", "simpo", "orpo")),
        ("sft", "beta"),
        ("sft", "eval_human"),
        ("infer", "learning_rate"),
        ("infer", "save_steps"),
        ("infer", "verbose"),
    ],
)
def test_no_rule_decides_what_the_command_or_the_method_does_not_have(line: str, flag: str) -> None:
    config, record = resolved(*line.split())
    assert (config.get(flag), flag in record) == (None, False)


def test_a_rule_without_an_answer_leaves_the_value_open() -> None:
    config, plan = apply(
        [Rule("save_steps", None, "-"), Rule("seed", 7, "-")], configured("sft"), RunPlan(command="sft")
    )
    assert (config.saving.save_steps, config.training.seed, plan.resolved) == (None, 42, {})


@pytest.mark.parametrize(("tuner", "rate"), [("lora", 1e-4), ("full", 1e-5)])
def test_the_learning_rate_is_the_tuners(tuner: str, rate: float) -> None:
    config, record = resolved("sft", tuner=tuner)
    assert (config.optimizer.learning_rate, record["learning_rate"]["rule"]) == (rate, f"tuner {tuner}")


def test_a_tuner_that_states_no_learning_rate_gets_that_of_lora() -> None:
    entry = installed().find("tuner", "lora")
    facts = {key: value for key, value in entry.facts.items() if key != "learning_rate"}
    found = rules(
        configured("sft"),
        model=model_entry(),
        template="t",
        tuner=dataclasses.replace(entry, facts=facts),
        world_size=1,
    )
    assert {rule.value for rule in found if rule.flag == "learning_rate"} == {1e-4}


@pytest.mark.parametrize(("tuner", "only"), [("lora", False), ("full", True)])
def test_checkpoints_of_whole_models_leave_out_what_resuming_needs(tuner: str, only: bool) -> None:
    assert resolved("sft", tuner=tuner)[0].saving.save_only_model is only


@pytest.mark.parametrize(
    ("batch_size", "world_size", "steps"),
    [(1, 1, 16), (2, 1, 8), (3, 1, 6), (16, 1, 1), (32, 1, 1), (1, 2, 8), (1, 3, 6), (4, 8, 1), (5, 2, 2), (1, 16, 1)],
)
def test_a_step_is_about_16_rows_over_all_processes(batch_size: int, world_size: int, steps: int) -> None:
    config, record = resolved("sft", "--batch_size", str(batch_size), world_size=world_size)
    assert config.training.gradient_accumulation_steps == steps
    rule = f"ceil(16 / {batch_size} batch_size / {world_size} world_size)"
    assert record["gradient_accumulation_steps"] == {"value": steps, "rule": rule}


@pytest.mark.parametrize(("platform", "workers"), [("linux", 1), ("darwin", 1), ("win32", 0)])
def test_windows_collates_in_the_main_process(monkeypatch: pytest.MonkeyPatch, platform: str, workers: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert resolved("sft")[0].training.dataloader_num_workers == workers


def test_rows_of_multimodal_models_are_encoded_when_they_are_needed() -> None:
    config, record = resolved("sft", model=model_entry(tags=["vision"]))
    assert (config.get("lazy_tokenize"), record["lazy_tokenize"]["rule"]) == (True, "a multimodal model")


@pytest.mark.parametrize(("cuda", "backend"), [(True, "nccl"), (False, "gloo")])
def test_processes_talk_through_nccl_on_gpus(monkeypatch: pytest.MonkeyPatch, cuda: bool, backend: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert resolved("sft", model=model_entry(dtype="fp32"), world_size=2)[0].distributed.ddp_backend == backend


def test_a_gpu_without_bf16_computes_in_fp16_whatever_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    record = resolved("sft", model=model_entry(dtype="bf16"))[1]
    assert record["dtype"] == {"value": "fp16", "rule": "the GPU lacks bf16"}


@pytest.mark.parametrize("command", ["sft", "infer"])
def test_auto_dtype_is_the_models_own(command: str) -> None:
    config, record = resolved(command, model=model_entry(dtype="fp16"))
    assert (config.model.dtype, record["dtype"]) == ("fp16", {"value": "fp16", "rule": "the model's own"})


@pytest.mark.parametrize(
    ("cuda", "bf16", "dtype"),
    [(True, True, "bf16"), (True, False, "fp16"), (False, True, "bf16"), (False, False, "fp32")],
)
def test_auto_dtype_is_what_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, bf16: bool, dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16, raising=False)
    assert auto_dtype()[0] == dtype


# --- the engine and the tuner of a checkpoint -----------------------------------------------------


@pytest.fixture
def with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """The installed plugins, and one that has an engine called vllm."""
    package = tmp_path / "llmtune_plugin_fast"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "llmtune-plugin.toml").write_text('api = 1\n[engine.vllm]\nsummary = "Fast"\n')
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint(
        name="fast", value="llmtune_plugin_fast:llmtune-plugin.toml", dist="llmtune-plugin-fast", version="1.0"
    )
    return discover(entry_points=[*installed_entry_points(), point])


def names_of(config: Any, catalogue: Catalogue) -> dict[str, str]:
    """Return kind -> name of what a run uses, extensions included; everything wrong is raised."""
    problems = Problems()
    used, extensions = find_behaviours(config, catalogue, problems)
    problems.raise_any()
    return {entry.kind: entry.name for entry in (*used.values(), *extensions)}


def answering(**values: Any) -> Any:
    return build_config(COMMANDS["infer"], Given(values))


@pytest.mark.parametrize(
    ("values", "without", "installed_too"),
    [
        ({}, "pt", "vllm"),
        ({"ckpt_dir": "c"}, "pt", "pt"),
        ({"ckpt_dir": "c", "sft_type": "full"}, "pt", "vllm"),
        ({"sft_type": "full"}, "pt", "vllm"),
        ({"infer_backend": "pt"}, "pt", "pt"),
        ({"infer_backend": "vllm", "ckpt_dir": "c"}, "vllm", "vllm"),
    ],
)
def test_whole_models_are_answered_with_vllm_where_it_is_installed(
    with_vllm: Catalogue, values: dict[str, str], without: str, installed_too: str
) -> None:
    config = answering(**values)
    assert (engine_name(config, installed()), engine_name(config, with_vllm)) == (without, installed_too)
    assert names_of(config, with_vllm)["engine"] == {"pt": "transformers"}.get(installed_too, installed_too)


def test_a_name_that_swift_has_is_used_once_a_plugin_brings_it(with_vllm: Catalogue) -> None:
    config = answering(infer_backend="vllm")
    assert names_of(config, with_vllm)["engine"] == "vllm"
    with pytest.raises(UsageError, match="--infer_backend vllm is not available yet"):
        names_of(config, installed())


@pytest.mark.parametrize(
    ("command", "values", "names"),
    [
        ("infer", {}, {"engine": "transformers"}),
        ("infer", {"ckpt_dir": "c"}, {"engine": "transformers", "tuner": "lora"}),
        ("infer", {"quantization_bit": 4}, {"engine": "transformers", "quantizer": "bnb"}),
        ("sft", {}, {"tuner": "lora", "trainer": "hf"}),
        ("pt", {}, {"tuner": "full", "trainer": "hf"}),
        ("sft", {"quantization_bit": 8}, {"tuner": "lora", "trainer": "hf", "quantizer": "bnb"}),
        ("sft", {"sft_type": "full", "use_galore": True}, {"tuner": "galore", "trainer": "hf"}),
        ("sft", {"sft_type": "full", "lisa_activated_layers": 0}, {"tuner": "full", "trainer": "hf"}),
        ("sft", {"neftune_noise_alpha": 5.0}, {"tuner": "lora", "trainer": "hf", "extension": "neftune"}),
        ("inspect", {}, {}),
    ],
)
def test_a_run_uses_the_plugins_that_its_flags_name(
    command: str, values: dict[str, Any], names: dict[str, str]
) -> None:
    assert names_of(build_config(COMMANDS[command], Given(values)), installed()) == names


# --- end to end -----------------------------------------------------------------------------------


def everything_below(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob("*")}


def rows_of(table: str) -> dict[str, list[str]]:
    """Return flag -> [value, rule] of the table that --dry_run prints."""
    split = (re.split(r"\s{2,}", line, maxsplit=2) for line in table.splitlines())
    return {cells[0]: cells[1:] for cells in split if len(cells) == 3}


def rehearsed(llmtune: Llmtune, tiny: Path, *flags: str) -> Result:
    model = ("--model_type", MODEL, "--model_id_or_path", str(tiny), "--dtype", "fp32")
    return llmtune("sft", *model, "--dataset", "data.jsonl", *flags, "--dry_run")


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(
    llmtune: Llmtune, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    good = '{"query": "a", "response": "b"}\n'
    (tmp_path / "data.jsonl").write_text(good * 38 + '{"query": "only"}\n' + '{"answer": ""}\n')
    before = everything_below(tmp_path)
    flags = ("--eval_steps", "9", "--dataset_test_ratio", "0.1", "--max_dropped_ratio", "0.1", "--batch_size", "2")
    result = rehearsed(llmtune, tiny, *flags)
    assert (result.code, everything_below(tmp_path) == before) == (0, True), result.err
    rows = rows_of(result.out)
    assert rows["learning_rate"] == ["0.0001", "tuner lora"]
    assert rows["gradient_accumulation_steps"] == ["8", "ceil(16 / 2 batch_size / 1 world_size)"]
    assert rows["save_steps"] == ["9", "--eval_steps"]
    assert "dtype" not in rows  # the user gave it
    assert "tuner: lora" in result.out
    assert ("rows: 40 read" in result.out, result.out.count("dropped 1: ")) == (True, 2)
    assert ("data.jsonl:39" in result.out, "data.jsonl:40" in result.out) == (True, True)
    found = re.search(r"(\d+) steps of 16 rows \((\d+) training rows, (\d+) validation rows, 1 processes\)", result.out)
    assert found, result.out
    steps, train, validation = map(int, found.groups())
    assert (train + validation, steps) == (38, math.ceil(train / 16))


def test_a_dry_run_without_enough_good_rows_fails_as_the_run_would(
    llmtune: Llmtune, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4 + '{"query": "only"}\n' * 4)
    before = everything_below(tmp_path)
    result = rehearsed(llmtune, tiny)
    assert (result.code, "--max_dropped_ratio" in result.err, everything_below(tmp_path) == before) == (1, True, True)


@pytest.mark.parametrize("how", [("--streaming", "true", "--max_steps", "2"), ("--lazy_tokenize", "true")])
def test_a_dry_run_tries_rows_that_the_run_encodes_while_it_trains(
    llmtune: Llmtune, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"query": "a", "response": "b"}\n' * 20)
    result = rehearsed(llmtune, tiny, *how)
    assert (result.code, "were encoded to try them" in result.out) == (0, True), result.err
    assert re.search(r"s for a step of [\d,]+ tokens", result.out), result.out
    (tmp_path / "data.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4 + '{"query": "only"}\n' * 4)
    result = rehearsed(llmtune, tiny, *how)
    assert (result.code, "data.jsonl:5" in result.err) == (1, True), result.out


def test_run_json_records_each_value_with_its_rule(llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> None:
    result = llmtune("sft", *tiny_flags, "--eval_steps", "2")
    assert result.code == 0, result.err
    (path,) = tmp_path.rglob("run.json")
    record = json.loads(path.read_text())["plan"]["resolved"]
    assert record["learning_rate"] == {"value": 1e-4, "rule": "tuner lora"}
    assert record["save_steps"] == {"value": 2, "rule": "--eval_steps"}
    assert record["dataset_seed"] == {"value": 42, "rule": "--seed"}
    assert {"dtype", "gradient_accumulation_steps"} & set(record) == set()  # the user gave them
    arguments = json.loads((path.parent / "sft_args.json").read_text())
    assert {flag: arguments[flag] for flag in record} == {flag: one["value"] for flag, one in record.items()}


@pytest.mark.parametrize(
    ("count", "flags", "shown"),
    [
        (3, (), True),
        (99, (), True),
        (100, (), False),
        (3, ("--verbose", "false"), False),
        (100, ("--verbose",), True),
    ],
)
def test_answers_are_shown_below_100_rows_or_when_asked_for(
    llmtune: Llmtune, tiny: Path, tmp_path: Path, count: int, flags: tuple[str, ...], shown: bool
) -> None:
    (tmp_path / "ask.jsonl").write_text('{"query": "a"}\n' * count)
    result = llmtune(
        *("infer", "--model_type", MODEL, "--model_id_or_path", str(tiny), "--dtype", "fp32", "--max_new_tokens", "1"),
        *("--val_dataset", str(tmp_path / "ask.jsonl"), "--result_dir", str(tmp_path / "result"), *flags),
        *("--show_dataset_sample", "-1", "--infer_batch_size", "50"),
    )
    assert result.code == 0, result.err
    assert result.out.count("[query] a\n") == (count if shown else 0)
    (answers,) = (tmp_path / "result").glob("*.jsonl")
    assert len(answers.read_text().splitlines()) == count
