"""Run files: YAML and JSON in, every configuration out and back, no secrets, and a schema that agrees."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Llmtune
from configuring import called, configured, installed

from llmtune.config.commands import COMMANDS
from llmtune.config.schema import json_schema
from llmtune.errors import UsageError
from llmtune.pipelines.print_config import run_file

SETTINGS: dict[str, tuple[str, ...]] = {
    "sft": (
        *("--model_type", "m", "--dataset", "a#5", "b", "--system", "Be: kind # 你好\n'really'", "--lora_rank", "16"),
        *("--learning_rate", "1e-3", "--lr_scheduler_kwargs", '{"num_cycles": 2}', "--report_to", "none", "--offline"),
        *("--quantization_bit", "4", "--bnb_4bit_quant_type", "fp4", "--target_modules", "ALL", "--max_steps", "-1"),
        *("--model_name", "小智", "None", "--model_author", "A", "--output_dir", "yes", "--model_revision", "1.0"),
    ),
    "pt": ("--model_type", "m", "--freeze_parameters", "0.5", "--eval_steps", "3"),
    "rlhf": ("--model_type", "m", "--lora_alpha", "8", "--loss_type", "sigmoid"),
    "infer": ("--model_type", "m", "--val_dataset", "a", "--stop_words", "null", "~", "1", "--eval_human", "false"),
    "merge-lora": ("--model_id_or_path", "null"),
    "export": ("--model_type", "m", "--seed", "7"),
    "eval": ("--temperature", "0.5", "--do_sample"),
    "deploy": ("--verbose", "false"),
    "app-ui": ("--system", ""),
    "web-ui": (),
    "inspect": ("--dataset", "a", "--rows", "2", "--ids", "false"),
}
"""Command -> flags that are not the defaults, some with values that YAML could take for something else."""


def complete(command: str, *words: str) -> dict[str, Any]:
    """Return every flag with its value, those of the plugins of the run included."""
    config = configured(command, *words)
    run_file(command, config, installed())  # adds the options
    return config.flat()


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("settings", [False, True], ids=["defaults", "settings"])
def test_a_printed_configuration_reads_back_to_the_same(command: str, settings: bool, tmp_path: Path) -> None:
    words = SETTINGS[command] if settings else ()
    text = called(command, *words, "--print_config")
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert complete(command, str(path)) == complete(command, *words)
    assert called(command, str(path), "--print_config") == text
    json_path = tmp_path / "run.json"
    json_path.write_text(json.dumps(yaml.safe_load(text)), encoding="utf-8")
    assert complete(command, str(json_path)) == complete(command, *words)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_printed_configuration_has_every_flag_with_its_help(command: str) -> None:
    text = called(command, *SETTINGS[command], "--print_config")
    values = yaml.safe_load(text)
    assert values == complete(command, *SETTINGS[command])
    assert [line for line in text.splitlines() if line and "#" not in line] == []
    assert text.startswith(f"# llmtune {command} THIS_FILE\n")


TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def misfits(schema: dict[str, Any], values: Any) -> list[str]:
    """Return what a mapping has that the schema does not allow: names, types, choices, bounds.

    Where the jsonschema library is installed it must come to the same result.
    """
    if not isinstance(values, dict):
        found = ["not a mapping"]
    else:
        properties = schema["properties"]
        found = [key for key, value in values.items() if key not in properties or not fits(properties[key], value)]
    if importlib.util.find_spec("jsonschema"):
        validator = importlib.import_module("jsonschema").Draft202012Validator(schema)
        validator.check_schema(schema)
        assert validator.is_valid(values) == (found == [])
    return found


def fits(prop: dict[str, Any], value: Any) -> bool:
    if "anyOf" in prop:
        return any(fits(one, value) for one in prop["anyOf"])
    if "enum" in prop or "const" in prop:
        return value in prop.get("enum", [prop.get("const")])
    if not isinstance(value, TYPES[prop["type"]]) or (isinstance(value, bool) and prop["type"] != "boolean"):
        return False
    if isinstance(value, list):
        return all(fits(prop["items"], item) for item in value)
    return in_bounds(prop, value) if isinstance(value, int | float) else True


def in_bounds(prop: dict[str, Any], value: float) -> bool:
    infinity = float("inf")
    within = prop.get("minimum", -infinity) <= value <= prop.get("maximum", infinity)
    return within and prop.get("exclusiveMinimum", -infinity) < value < prop.get("exclusiveMaximum", infinity)


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("settings", [False, True], ids=["defaults", "settings"])
def test_a_printed_configuration_is_valid_by_the_schema(command: str, settings: bool) -> None:
    schema = json_schema(command, installed())
    words = SETTINGS[command] if settings else ()
    values = yaml.safe_load(called(command, *words, "--print_config"))
    assert misfits(schema, values) == []


@pytest.mark.parametrize(
    "wrong", [{"seed": "x"}, {"no_such_flag": 1}, {"dtype": "fp8"}, {"batch_size": 0}, {"dataset": {"a": 1}}, []]
)
def test_the_schema_refuses_what_the_command_refuses(wrong: Any, tmp_path: Path) -> None:
    assert misfits(json_schema("sft", installed()), wrong) != []
    (tmp_path / "run.json").write_text(json.dumps(wrong or ["a"]))
    with pytest.raises(UsageError):
        configured("sft", str(tmp_path / "run.json"))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_command_prints_its_schema(llmtune: Llmtune, command: str) -> None:
    result = llmtune("config-schema", command)
    assert (result.code, json.loads(result.out)) == (0, json_schema(command, installed()))


# --- reading --------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str, name: str = "run.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_the_command_line_wins_over_the_run_file(written: Any) -> None:
    path = written("seed: 1\nbatch_size: 3\ndataset: [a, b]\nlora-rank: 4\n")
    values = yaml.safe_load(called("sft", path, "--seed", "2", "--dataset", "c", "--print_config"))
    assert {key: values[key] for key in ("seed", "batch_size", "dataset", "lora_rank")} == {
        "seed": 2,
        "batch_size": 3,
        "dataset": ["c"],
        "lora_rank": 4,
    }


def test_yaml_and_json_say_the_same(written: Any) -> None:
    values = {"seed": 3, "dataset": ["a"], "system": None, "use_dora": True, "lr_scheduler_kwargs": {"num_cycles": 2}}
    assert complete("sft", written(json.dumps(values), "r.json")) == complete("sft", written(yaml.safe_dump(values)))


@pytest.mark.parametrize(
    ("text", "line", "flag", "found"),
    [
        ("# a comment\nseed: x\n", 2, "seed", "'x'"),
        ("dataset:\n  - a\n  - b\nbatch_size: 0\n", 4, "batch_size", "0"),
        ("dtype: fp8\n", 1, "dtype", "'fp8'"),
        ("use_dora: perhaps\n", 1, "use_dora", "'perhaps'"),
        ("seed: [1, 2]\n", 1, "seed", "[1, 2]"),
        ("\n\nlora_rank: {a: 1}\n", 3, "lora_rank", "{'a': 1}"),
        ("model_type: 5\n", 1, "model_type", "5"),
    ],
)
def test_a_wrong_value_names_file_and_line(written: Any, text: str, line: int, flag: str, found: str) -> None:
    path = written(text)
    with pytest.raises(UsageError) as caught:
        called("sft", path, "--print_config")
    assert f"{path}:{line}: {flag}: " in caught.value.problem
    assert f"found {found}" in caught.value.problem


def test_what_is_not_available_yet_names_file_and_line(written: Any) -> None:
    path = written("seed: 1\nsequence_parallel: true\ntp: 16\n")
    with pytest.raises(UsageError) as caught:
        called("sft", path, "--print_config")
    assert f"{path}:2: sequence_parallel is not available yet" in caught.value.problem
    with pytest.raises(UsageError) as caught:
        called("sft", path, "--sequence_parallel", "false", "--print_config")
    assert f"{path}:3: tp is not available yet" in caught.value.problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "seed: 1\n\nlora_rnak: 8\n"),
        ("run.yml", "seed: 1\n\nlora-rnak: 8\n"),
        ("r.json", '{"seed": 1,\n\n"lora_rnak": 8}'),
    ],
)
def test_an_unknown_key_names_file_line_and_the_right_one(written: Any, name: str, text: str) -> None:
    path = written(text, name)
    with pytest.raises(UsageError) as caught:
        called("sft", path)
    assert caught.value.problem == f"{path}:3: unknown option lora_rnak"
    assert caught.value.fix == "did you mean lora_rank?"


# --- secrets --------------------------------------------------------------------------------------

SECRETS = {
    "sft": ["hub_token"],
    "export": ["hub_token"],
    "eval": ["hub_token", "eval_token"],
    "deploy": ["hub_token", "api_key"],
}


@pytest.mark.parametrize("command", sorted(SECRETS))
def test_secrets_are_in_no_record(command: str) -> None:
    config = configured(command)
    assert {flag for flag in SECRETS[command] if config.get(flag, "absent") == "absent"} == set()
    assert set(SECRETS[command]) & set(config.flat()) == set()
    text = called(command, "--print_config")
    assert [flag for flag in SECRETS[command] if f"{flag}:" in text] == []


@pytest.mark.parametrize("command", sorted(SECRETS))
def test_a_secret_that_was_given_is_not_shown(command: str) -> None:
    for flag in SECRETS[command]:
        config = configured(command, f"--{flag}", "hunter2")
        assert "hunter2" not in str(config.flat())
        assert [problem for problem in config.problems if "hunter2" in problem] == []
        assert "hunter2" not in run_file(command, config, installed())


def test_a_run_records_no_token(
    llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    result = llmtune("sft", *tiny_flags, "--hub_token", "hunter2")
    assert result.code == 0, result.err
    files = [path for path in (tmp_path / "output").rglob("*") if path.suffix in (".json", ".jsonl", ".yaml")]
    assert {"run.json", "sft_args.json"} <= {path.name for path in files}
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    assert [name for name, text in texts.items() if "hunter2" in text or "hub_token" in text] == []
    assert json.loads(texts["run.json"])["environment"]["HF_TOKEN"] == "set"
