"""A run goes on as it was: other settings are refused before anything of it is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Llmtune, without

from llmtune.train.checkpoint import complete_checkpoints


@pytest.fixture
def flags(tiny_flags: list[str], tmp_path: Path) -> list[str]:
    return [
        *without(tiny_flags, "--max_steps", "--output_dir"),
        *("--output_dir", str(tmp_path / "run"), "--add_output_dir_suffix", "false"),
        *("--max_steps", "4", "--eval_steps", "2", "--save_total_limit", "-1", "--lora_rank", "4"),
    ]


@pytest.fixture
def ended(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> Path:
    """The folder of a run with checkpoints at steps 2 and 4."""
    assert llmtune("sft", *flags).code == 0
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_settings_of_another_run_are_refused_and_nothing_is_touched(
    llmtune: Llmtune, flags: list[str], ended: Path, tmp_path: Path
) -> None:
    before = files(ended)
    (tmp_path / "other.jsonl").write_text('{"query": "a", "response": "b"}\n' * 8, encoding="utf-8")
    start = ("--resume_from_checkpoint", str(ended / "checkpoint-2"))
    cases = {
        ("--lora_rank", "8"): "--lora_rank is 8, was 4",
        ("--sft_type", "full"): "--sft_type is full, was lora",
        ("--learning_rate", "1e-2"): "--learning_rate is 0.01, was 0.0001",
        ("--seed", "7"): "--seed is 7, was 42",
        ("--dataset", str(tmp_path / "other.jsonl")): "other.jsonl, was self-cognition#20",
        ("--batch_size", "3"): "a step of the run had 2 rows, and now has 6",
        ("--neftune_noise_alpha", "5"): "--neftune_noise_alpha is 5.0, was None",
        ("--max_steps", "1"): "is from step 2, and --max_steps 1 ends the run before it",
    }
    for more, problem in cases.items():
        for rehearsal in ([], ["--dry_run"]):
            done = llmtune("sft", *without(flags, more[0]), *start, *more, *rehearsal)
            assert (done.code, problem in done.err) == (2, True), (more, done.err)
    assert files(ended) == before


def test_what_was_on_and_is_off_is_refused(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    assert llmtune("sft", *flags, "--neftune_noise_alpha", "5").code == 0
    done = llmtune("sft", *flags, "--resume_from_checkpoint", str(tmp_path / "run/checkpoint-2"))
    assert (done.code, "--neftune_noise_alpha is None, was 5.0" in done.err) == (2, True), done.err


def test_what_does_not_decide_what_is_learned_may_change(
    llmtune: Llmtune, flags: list[str], ended: Path, tmp_path: Path
) -> None:
    start = ("--resume_from_checkpoint", str(ended / "checkpoint-4"))
    longer = (*without(flags, "--max_steps", "--save_total_limit"), "--max_steps", "5")
    done = llmtune("sft", *longer, *start, "--save_total_limit", "2", "--micro_batch_tokens", "300")
    assert done.code == 0, done.err
    assert [path.name for path in complete_checkpoints(ended)][-1] == "checkpoint-5"


def test_checkpoints_of_the_part_that_is_left_behind_go_aside(llmtune: Llmtune, flags: list[str], ended: Path) -> None:
    done = llmtune("sft", *flags, "--resume_from_checkpoint", str(ended / "checkpoint-2"))
    assert done.code == 0, done.err
    assert f"checkpoints that came after checkpoint-2 are in {ended / 'abandoned-1'} now" in done.out
    for folder, names in ((ended, ["checkpoint-2", "checkpoint-4"]), (ended / "abandoned-1", ["checkpoint-4"])):
        assert [path.name for path in complete_checkpoints(folder)] == names


def test_weights_alone_are_those_of_the_checkpoint(llmtune: Llmtune, flags: list[str], ended: Path) -> None:
    start = ("--resume_from_checkpoint", str(ended / "checkpoint-2"), "--resume_only_model", "true")
    anew = [*without(flags, "--output_dir", "--lora_rank"), "--output_dir", str(ended / "anew")]
    done = llmtune("sft", *anew, *start, "--learning_rate", "1e-3")
    assert (done.code, "--lora_rank is 8, was 4" in done.err) == (2, True), done.err
    assert llmtune("sft", *anew, *start, "--learning_rate", "1e-3", "--lora_rank", "4").code == 0
    assert json.loads((ended / "anew/sft_args.json").read_text())["lora_rank"] == 4
