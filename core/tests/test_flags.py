import pytest

from llmtune.config.flags import check_names, short_options, split_flags
from llmtune.errors import UsageError


@pytest.mark.parametrize(
    ("line", "words", "flags"),
    [
        ("run.yaml --lora_rank 16", ["run.yaml"], {"lora_rank": ["16"]}),
        ("--dataset a b c", [], {"dataset": ["a", "b", "c"]}),
        ("--dataset a --seed 1 --dataset b", [], {"dataset": ["a", "b"], "seed": ["1"]}),
        ("--use-dora --packing", [], {"use_dora": [], "packing": []}),
        ("--lr=1e-4 --text=a=b", [], {"lr": ["1e-4"], "text": ["a=b"]}),
        ("--system=", [], {"system": [""]}),
        ("--max_steps -1 --max_length -1.5e3", [], {"max_steps": ["-1"], "max_length": ["-1.5e3"]}),
        ("", [], {}),
    ],
)
def test_a_flag_takes_the_words_up_to_the_next_flag(line, words, flags):
    assert split_flags(line.split()) == (words, flags)


@pytest.mark.parametrize(
    ("line", "found"),
    [("--seed 1 -x", ["-x"]), ("-x run.yaml -Y", ["-x", "-Y"]), ("--max_steps -1 --system - -- -ab a-b -é", [])],
)
def test_a_short_option_is_told_from_numbers_and_dashes(line, found):
    assert short_options(line.split()) == found


def test_known_names_pass():
    check_names(["seed", "lr"], ["lr", "seed", "x"], "sft")


def test_a_misspelt_flag_is_answered_with_the_right_one(fails):
    error = fails(UsageError, check_names, ["lora_rnak"], ["lora_rank", "seed"], "sft")
    assert (error.problem, error.fix, error.exit_code) == (
        "unknown option --lora_rnak",
        "did you mean --lora_rank?",
        2,
    )


def test_all_misspelt_flags_are_named_together(fails):
    error = fails(UsageError, check_names, ["lora_rnak", "sede", "seed"], ["lora_rank", "seed"], "sft")
    assert error.problem == "unknown options --lora_rnak, --sede"
    assert ("--lora_rank" in error.fix, "--seed" in error.fix) == (True, True)


def test_a_flag_like_no_other_points_to_help(fails):
    assert "llmtune sft --help" in fails(UsageError, check_names, ["zzzzz"], ["seed"], "sft").fix
