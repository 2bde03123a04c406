"""SWIFT's "Run using Python": arguments, training, answering, from a script and in process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import NAMES

import llmtune
from llmtune import InferArguments, SftArguments, infer_main, sft_main
from llmtune.cli import commands
from llmtune.cli.config_command import ConfigCommand
from llmtune.config.source import OPTION_KINDS
from llmtune.errors import DataError, UsageError
from llmtune.pipelines.run import PIPELINES
from llmtune.plugins import local as local_plugins
from llmtune.testing.tiny import load_tiny

MODEL = "smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def fresh_process() -> Any:
    """What a test registers does not reach another."""
    yield
    local_plugins._session.tables.clear()
    local_plugins._session.functions.clear()


@pytest.fixture
def training(tiny: Path, tmp_path: Path) -> dict[str, Any]:
    """Arguments that train the tiny model for two steps."""
    return {
        "model_type": MODEL,
        "model_id_or_path": str(tiny),
        "dataset": ["self-cognition#20"],
        "model_name": list(NAMES[1:3]),
        "model_author": list(NAMES[4:]),
        "output_dir": tmp_path / "output",
        "dtype": "fp32",
        "max_steps": 2,
        "gradient_accumulation_steps": 2,
        "disable_tqdm": True,
    }


# --- arguments ------------------------------------------------------------------------------------


def test_every_flag_is_an_attribute_with_its_value_or_default() -> None:
    args = SftArguments(model_type=MODEL, dataset="alpaca-en,alpaca-zh", lora_rank=16, dtype=None, system="")
    assert (args.model_type, args.dataset, args.lora_rank) == (MODEL, ["alpaca-en", "alpaca-zh"], 16)
    assert (args.dtype, args.system, args.lora_alpha, args.batch_size) == ("AUTO", "", 32, 1)
    assert args.target_modules == ["DEFAULT"]
    assert args.model_author == [None, None]  # a flag of a dataset that the run does not use


def test_text_is_understood_as_on_the_command_line() -> None:
    args = SftArguments(target_modules="ALL", lora_rank="4", gradient_checkpointing="false", dataset=("a", "b"))
    assert (args.target_modules, args.lora_rank, args.gradient_checkpointing) == (["ALL"], 4, False)
    assert args.dataset == ["a", "b"]


def test_names_of_2023_are_accepted_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    args = SftArguments(lora_dropout_p=0.1, only_save_model=True, custom_train_dataset_path="rows.jsonl")
    assert (args.lora_dropout, args.save_only_model, args.dataset) == (0.1, True, ["rows.jsonl"])
    assert args.lora_dropout_p == 0.1
    assert [line.split(";")[0] for line in capsys.readouterr().err.splitlines()] == [
        "warning: --lora_dropout_p is deprecated",
        "warning: --only_save_model is deprecated",
        "warning: --custom_train_dataset_path is deprecated",
    ]


def test_arguments_show_what_was_given_without_secrets() -> None:
    args = SftArguments(model_type=MODEL, lora_rank=16, hub_token="hf_secret")
    assert repr(args) == f"SftArguments(model_type='{MODEL}', lora_rank=16, hub_token='...')"
    assert "hf_secret" not in repr(args.config)
    assert args.given["lora_rank"] == 16


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"lora_rnak": 8}, "did you mean --lora_rank?"),
        ({"lora_rank": 0}, "--lora_rank: "),
        ({"lora_rank": "many"}, "--lora_rank: "),
        ({"batch_size": 1.5}, "--batch_size: "),
        ({"learning_rate": "x", "max_steps": "y"}, "--max_steps: "),
        ({"sft_type": "lroa"}, "did you mean lora?"),
        ({"quant_method": "aqlm", "quantization_bit": 4}, "--quant_method aqlm is not available yet"),
        ({"sequence_parallel_size": 2}, "--sequence_parallel_size 2 does not divide the 1 processes of the run"),
        ({"lora_dropout": 0.1, "lora_dropout_p": 0.1}, "both were given"),
        ({"custom_register_path": ["no-such-file.py"]}, "no such file"),
        ({"custom_register_path": 3}, "custom_register_path must be text, or a list of texts, found 3"),
        ({"custom_register_path": [3]}, "custom_register_path must be text, or a list of texts, found 3"),
    ],
)
def test_wrong_arguments_are_refused_when_they_are_made(values: dict[str, Any], shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        SftArguments(**values)
    assert shown in str(caught.value)


def test_several_mistakes_are_raised_together() -> None:
    with pytest.raises(UsageError) as caught:
        SftArguments(lora_rank=0, tp=2)
    assert "--lora_rank: " in caught.value.problem
    assert "--tp is not available yet" in caught.value.problem


def test_arguments_do_not_change_and_have_no_other_attributes() -> None:
    args = SftArguments(model_type=MODEL)
    with pytest.raises(AttributeError, match="make new ones"):
        args.lora_rank = 16
    with pytest.raises(AttributeError, match="did you mean lora_rank"):
        _ = args.lora_rnak
    assert {"lora_rank", "max_steps", "config"} <= set(dir(args))


def test_every_command_has_its_arguments_and_main() -> None:
    cli = [one.name for one in vars(commands).values() if isinstance(one, ConfigCommand)]
    assert set(PIPELINES) <= set(cli)
    missing = [name for name in cli if not hasattr(llmtune, f"{name.replace('-', '_')}_main") and name != "inspect"]
    assert missing == []


@pytest.mark.parametrize("command", sorted(set(OPTION_KINDS) - set(PIPELINES)))
def test_commands_to_come_say_so(command: str) -> None:
    main = getattr(llmtune, f"{command.replace('-', '_')}_main")
    with pytest.raises(UsageError, match=f"llmtune {command} is not available yet"):
        main([])


def test_options_of_a_registered_tuner_are_arguments(tmp_path: Path) -> None:
    (tmp_path / "tuners.py").write_text(
        "from pydantic import Field\n"
        "from llmtune import register_tuner\n"
        "from llmtune.api import Section\n\n\n"
        "class Options(Section):\n"
        '    """Mine"""\n\n'
        '    my_rank: int = Field(3, description="A number.")\n\n\n'
        "register_tuner('mine', print, options=Options)\n"
    )
    args = SftArguments(custom_register_path=str(tmp_path / "tuners.py"), sft_type="mine", my_rank=5)
    assert args.my_rank == 5
    assert args.custom_register_path == [str(tmp_path / "tuners.py")]


# --- training and answering -----------------------------------------------------------------------


def test_a_model_is_trained_and_answers_from_python(training: dict[str, Any], tmp_path: Path) -> None:
    best = sft_main(SftArguments(**training))
    assert best == str(next((tmp_path / "output").rglob("checkpoint-2")))
    rows = tmp_path / "ask.jsonl"
    rows.write_text('{"query": "Who are you?"}\n')
    args = InferArguments(ckpt_dir=best, load_args_from_ckpt_dir=True, val_dataset=[rows], max_new_tokens=2)
    result = infer_main(args)
    assert result is not None
    (line,) = Path(result).read_text().splitlines()
    assert json.loads(line)["query"] == "Who are you?"


def test_words_are_read_as_on_the_command_line(tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    best = sft_main(tiny_flags)
    assert best is not None
    assert Path(best).name == "checkpoint-2"
    monkeypatch.setattr(sys, "argv", ["train.py", *tiny_flags, "--dry_run"])
    assert sft_main() is None


def test_words_that_are_wrong_raise(tiny_flags: list[str]) -> None:
    with pytest.raises(UsageError, match="unknown option"):
        sft_main([*tiny_flags, "--lora_rnak", "8"])


@pytest.mark.parametrize("words", [3, "--model_type x", {"model_type": "x"}, SftArguments])
def test_words_must_be_a_list(words: Any) -> None:
    with pytest.raises(UsageError) as caught:
        sft_main(words)
    assert caught.value.problem.startswith("sft takes a list of words or SftArguments(...), found ")
    assert caught.value.fix == "write ['--flag', 'value'] or SftArguments(flag='value')"


def test_self_cognition_without_names_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(UsageError) as caught:
        llmtune.get_dataset(["self-cognition#3"])
    assert caught.value.problem.startswith("dataset self-cognition needs --model_name and --model_author (Chinese")
    train, _ = llmtune.get_dataset(["self-cognition#3"], model_name=["Ada"], model_author=["Team"])
    assert len(train) == 3


def test_print_config_prints_and_trains_nothing(
    training: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft_main(SftArguments(**training, print_config=True)) is None
    assert "max_steps: 2" in capsys.readouterr().out
    assert not (tmp_path / "output").exists()


def test_arguments_of_another_command_are_read_as_its_own(training: dict[str, Any], tmp_path: Path) -> None:
    best = sft_main(SftArguments(**training))
    merged = llmtune.merge_lora_main(InferArguments(ckpt_dir=best))
    assert merged == f"{best}-merged"
    with pytest.raises(UsageError, match="unknown option --ckpt_dir"):
        sft_main(InferArguments(ckpt_dir=best))


def test_a_script_does_not_pretend_to_be_several_processes(
    training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    with pytest.raises(UsageError) as caught:
        sft_main(SftArguments(**training))
    assert "torchrun --nproc_per_node 2" in caught.value.fix


def test_what_is_registered_after_the_arguments_were_made_is_found(training: dict[str, Any], tiny: Path) -> None:
    """As in a notebook: one cell each, in any order, and run twice."""
    values = {**training, "model_type": "mine", "dataset": ["pairs"], "template_type": "plain"}
    for name in ("model_id_or_path", "model_name", "model_author"):
        del values[name]
    args = SftArguments(**values)
    for _ in range(2):
        llmtune.register_model("mine", str(tiny), ["q_proj"], "plain", llmtune.get_model_tokenizer_from_repo)
        llmtune.register_template("plain", llmtune.Template([], ["{{QUERY}}\n"], ["\n"], [["eos_token_id"]]))
        llmtune.register_dataset("pairs", get_function=lambda: [{"query": f"{n}?", "response": "n"} for n in range(8)])
    best = sft_main(args)
    assert best is not None
    assert json.loads((Path(best) / "template.json").read_text())["name"] == "plain"


SCRIPT = """\
import os
os.environ['CUDA_VISIBLE_DEVICES'] = ''

import torch

from llmtune import (
    DatasetName, InferArguments, ModelType, SftArguments
)
from llmtune import infer_main, sft_main, web_ui_main

model_type = ModelType.{model_type}
sft_args = SftArguments(
    model_type=model_type,
    model_id_or_path='{tiny}', max_steps=2, dtype='fp32', disable_tqdm=True,
    model_name=['小智', 'Ada'], model_author=['团队', 'The Ada team'],
    eval_steps=50,
    train_dataset_sample=20,
    dataset=[DatasetName.self_cognition],
    output_dir='output',
    gradient_checkpointing=True)
best_ckpt_dir = sft_main(sft_args)
print(f'best_ckpt_dir: {{best_ckpt_dir}}')
torch.cuda.empty_cache()
infer_args = InferArguments(
    ckpt_dir=best_ckpt_dir, max_new_tokens=2,
    load_args_from_ckpt_dir=True,
    stream=True,
    show_dataset_sample=5)
infer_main(infer_args)
torch.cuda.empty_cache()
web_ui_main(infer_args)
"""


def test_the_script_of_the_readme_runs(tiny: Path, tmp_path: Path) -> None:
    """Its last line is a browser page that llmtune does not have yet, and says so."""
    text = SCRIPT.format(tiny=tiny, model_type=MODEL.replace("-", "_"))
    (tmp_path / "train.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        input="Who are you?\nexit\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    (best,) = (line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("best_ckpt_dir: "))
    assert (tmp_path / best / "adapter_model.safetensors").is_file()
    assert "system TEXT     set the system prompt" in done.stdout  # the chat took the question
    if "web-ui" not in PIPELINES:
        assert done.stderr.rstrip().endswith("llmtune --help lists what is")


# --- inference ------------------------------------------------------------------------------------


def test_inference_answers_and_keeps_the_history(tiny: Path) -> None:
    loaded = load_tiny(tiny)
    template = llmtune.get_template("chatml", loaded.tokenizer)
    flags: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    response, history = llmtune.inference(loaded.model, template, "Hi", **flags)
    assert history == [("Hi", response)]
    more, longer = llmtune.inference(loaded.model, template, "And?", history, "Be kind.", **flags)
    assert longer == [("Hi", response), ("And?", more)]
    *_, (streamed, past) = llmtune.inference_stream(loaded.model, template, "Hi", **flags)
    assert (streamed, past) == (response, history)


def test_the_seed_decides_a_sampled_answer(tiny: Path) -> None:
    loaded = load_tiny(tiny)
    template = llmtune.get_template("chatml", loaded.tokenizer)
    answers = [
        llmtune.inference(loaded.model, template, "Hi", max_new_tokens=8, temperature=2.0, seed=seed)[0]
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_what_cannot_be_answered_is_refused_before_the_first_token() -> None:
    with pytest.raises(UsageError, match=r"template must be what get_template\(...\) returns, found 'chatml'"):
        llmtune.inference_stream(None, "chatml", "Hi")  # type: ignore[arg-type]


def test_a_history_of_no_pairs_is_a_data_error(tiny: Path) -> None:
    template = llmtune.get_template("chatml", load_tiny(tiny).tokenizer)
    with pytest.raises(DataError, match="history must be pairs"):
        llmtune.inference_stream(None, template, "Hi", ["a"])  # type: ignore[list-item]


@pytest.mark.parametrize("flags", [{"max_new_tokns": 5}, {"max_new_tokens": 0}])
def test_wrong_generation_flags_are_refused_before_the_first_token(tiny: Path, flags: dict[str, Any]) -> None:
    loaded = load_tiny(tiny)
    template = llmtune.get_template("chatml", loaded.tokenizer)
    with pytest.raises(UsageError, match="max_new_tok"):
        llmtune.inference_stream(loaded.model, template, "Hi", **flags)
