"""Names of 2023 and of SWIFT's own deprecations: each works, and says what it is called now."""

from __future__ import annotations

from typing import Any

import pytest
from configuring import configured, installed

from llmtune.cli.help import help_lines
from llmtune.config.aliases import RENAMED, SELECTORS, aliases, modernised
from llmtune.config.commands import COMMANDS
from llmtune.config.flags import Given, Words
from llmtune.errors import UsageError
from llmtune.pipelines.configure import known_flags

VALUES = {
    "boft_modules_to_save": ("modules_to_save", ["EMBEDDING"]),
    "boft_target_modules": ("target_modules", ["ALL"]),
    "deepspeed_config_path": ("deepspeed", ["default-zero2"]),
    "eval_strategy": ("evaluation_strategy", ["epoch"]),
    "ia3_modules_to_save": ("modules_to_save", ["LN"]),
    "ia3_target_modules": ("target_modules", ["q_proj", "k_proj"]),
    "lora_dropout_p": ("lora_dropout", ["0.25"]),
    "lora_modules_to_save": ("modules_to_save", ["LN"]),
    "lora_target_modules": ("target_modules", ["ALL"]),
    "lora_target_regex": ("target_regex", ["q.*"]),
    "merge_lora_and_save": ("merge_lora", ["true"]),
    "model_cache_dir": ("model_id_or_path", ["some/folder"]),
    "neftune_alpha": ("neftune_noise_alpha", ["5"]),
    "only_save_model": ("save_only_model", ["true"]),
    "per_device_eval_batch_size": ("eval_batch_size", ["3"]),
    "per_device_train_batch_size": ("batch_size", ["3"]),
    "safe_serialization": ("save_safetensors", ["true"]),
    "server_name": ("host", ["0.0.0.0"]),
    "server_port": ("port", ["7000"]),
    "vera_modules_to_save": ("modules_to_save", ["LN"]),
    "vera_target_modules": ("target_modules", ["ALL"]),
    "vllm_lora_modules": ("lora_modules", ["a=b"]),
}
"""Old name -> (what it is called now, words that are not the default)."""


def command_with(flag: str) -> str:
    return next(command for command in COMMANDS if flag in known_flags(command, installed()))


def given(command: str, *words: str) -> dict[str, Any]:
    return dict(configured(command, *words).values)


def test_old_names_mean_what_they_meant() -> None:
    assert {old: new for old, (new, _) in VALUES.items()} == RENAMED


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_gives_the_new_one_and_says_so(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, (new, words) = command_with(old), VALUES[old]
    assert given(command, f"--{old}", *words) == {new: words}
    assert capsys.readouterr().err == f"warning: --{old} is deprecated; write --{new}\n"
    assert given(command, f"--{new}", *words) == {new: words}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_both_names_together_are_an_error(old: str) -> None:
    command, (new, words) = command_with(old), VALUES[old]
    with pytest.raises(UsageError) as caught:
        configured(command, f"--{old}", *words, f"--{new}", *words)
    assert (f"--{old}" in caught.value.problem, f"--{new}" in caught.value.problem) == (True, True)


LISTS = sorted(old for old, new in RENAMED.items() if new.endswith(("_modules", "_to_save")))
SWITCHES = ("merge_lora_and_save", "only_save_model", "safe_serialization")


@pytest.mark.parametrize(
    ("old", "words"), [*((old, ["None"]) for old in sorted(RENAMED)), *((old, []) for old in LISTS)]
)
def test_none_for_an_old_name_leaves_the_new_one_open(old: str, words: list[str]) -> None:
    """SWIFT's deprecated fields default to None or to an empty list, which scripts state."""
    new, others = VALUES[old]
    assert given(command_with(old), f"--{old}", *words, f"--{new}", *others) == {new: others}
    assert given(command_with(old), f"--{old}", *words) == {}


@pytest.mark.parametrize("old", SWITCHES)
def test_an_old_switch_without_a_word_is_on(old: str) -> None:
    assert configured(command_with(old), f"--{old}").get(RENAMED[old]) is True


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_lists_the_old_names_of_the_command_and_no_others(command: str) -> None:
    lines = "\n".join(help_lines(command, installed()))
    mine = aliases(known_flags(command, installed()))
    for old in (*RENAMED, *SELECTORS):
        assert (f"  --{old}  write --{mine.get(old)}\n" in f"{lines}\n") == (old in mine), old


def test_an_old_name_of_another_command_is_unknown() -> None:
    with pytest.raises(UsageError, match="unknown option --server_port"):
        configured("sft", "--server_port", "1")


@pytest.mark.parametrize(
    ("words", "dataset", "validation"),
    [
        (["--custom_train_dataset_path", "a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"], []),
        (["--custom_train_dataset_path", "a.jsonl,b.jsonl"], ["a.jsonl", "b.jsonl"], []),
        (["--dataset", "x", "--custom_train_dataset_path", "a.jsonl"], ["x", "a.jsonl"], []),
        (["--custom_val_dataset_path", "v.jsonl", "--val_dataset", "y"], [], ["y", "v.jsonl"]),
        (["--self_cognition_sample", "500"], ["self-cognition#500"], []),
        (
            ["--dataset", "x", "--self_cognition_sample", "5", "--custom_train_dataset_path", "a.jsonl"],
            ["x", "a.jsonl", "self-cognition#5"],
            [],
        ),
        (["--self_cognition_sample", "0"], [], []),
        (["--dataset", "x", "--custom_train_dataset_path", "None"], ["x"], []),
        (["--custom_train_dataset_path"], [], []),
    ],
)
def test_data_of_old_names_is_added(words: list[str], dataset: list[str], validation: list[str]) -> None:
    data = configured("sft", *words).data
    assert (data.dataset, data.val_dataset) == (dataset, validation)


@pytest.mark.parametrize(
    ("value", "expected"), [("a.jsonl", ["a.jsonl"]), (["a.jsonl"], ["a.jsonl"]), (None, []), ([], [])]
)
def test_data_of_old_names_in_a_run_file_is_added(value: object, expected: list[str]) -> None:
    values, notes = modernised(Given({"custom_train_dataset_path": value, "dataset": "x"}), ["dataset"])
    assert values["dataset"] == ["x", *expected]
    assert len(notes) == 1


@pytest.mark.parametrize("value", [None, [], Words(["None"]), Words([])])
def test_an_old_name_that_is_left_open_in_a_run_file_sets_nothing(value: object) -> None:
    values, notes = modernised(Given({"lora_target_modules": value}), ["target_modules"])
    assert (values, notes) == ({}, ["--lora_target_modules is deprecated; write --target_modules"])


def test_the_place_of_a_value_moves_with_its_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\nper_device_train_batch_size: none at all\n")
    with pytest.raises(UsageError) as caught:
        configured("sft", str(path))
    assert f"{path}:2: per_device_train_batch_size: " in caught.value.problem
