"""What a user sees of rows that cannot be used, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Llmtune
from transformers import AutoTokenizer

from llmtune.testing.tiny import tiny_model

GOOD = [json.dumps({"query": f"What is {number}?", "response": f"{number}."}) for number in range(5)]
BAD = {
    3: ('{"query": "What?", "response": ', "malformed JSON"),
    4: ('{"query": "", "response": "Three."}', "has no question"),
    6: ('{"query": "What is 5?"}', "has no answer to train on"),
    7: ('{"messages": [{"role": "robot", "content": "x"}]}', "unknown role 'robot'"),
    9: ('{"foo": "x", "bar": "y"}', "no column fits: found bar ('y'), foo ('x')"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tiny_model(tmp_path_factory.mktemp("model"))
    return ("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(folder))


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten rows, five of which are bad in five ways."""
    good, path = iter(GOOD), tmp_path / "ten.jsonl"
    path.write_text("\n".join(BAD[line][0] if line in BAD else next(good) for line in range(1, 11)))
    return path


def test_the_report_keeps_five_and_names_five_with_line_and_reason(
    llmtune: Llmtune, model: tuple[str, ...], ten: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    result = llmtune("inspect", *model, "--dataset", str(ten), "--report", "--output_dir", str(output))
    assert (result.code, "10 read, 5 to train on" in result.out) == (0, True)
    for line, (_, reason) in BAD.items():
        assert f"{ten}:{line}\n" in result.out
        assert f"dropped 1: {reason}" in result.out
    stored = json.loads((output / "data_report.json").read_text())
    assert (stored["train"], sum(stored["dropped"].values()), stored["length"]["count"]) == (5, 5, 5)
    assert (output / "images" / "token_lengths.png").stat().st_size > 1000


def test_the_strategy_error_stops_at_the_first_before_any_weights(
    llmtune: Llmtune, model: tuple[str, ...], ten: Path, tmp_path: Path
) -> None:
    for weights in Path(model[-1]).glob("*.safetensors"):
        weights.rename(weights.with_suffix(".gone"))
    try:
        flags = ("--check_dataset_strategy", "error", "--output_dir", str(tmp_path / "output"))
        result = llmtune("sft", *model, "--dataset", str(ten), *flags)
    finally:
        for weights in Path(model[-1]).glob("*.gone"):
            weights.rename(weights.with_suffix(".safetensors"))
    assert (result.code, f"{ten}:3: malformed JSON" in result.err) == (1, True)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"question": "q", "answer": "a", "solution": "s"}, ("'answer'", "'solution'", "--columns")),
        ({"foo": "q", "bar": "a"}, ("bar ('a'), foo ('q')", "looked for", "question", "solution")),
    ],
)
def test_columns_that_fit_two_roles_or_none_are_refused(
    llmtune: Llmtune, model: tuple[str, ...], tmp_path: Path, record: dict[str, str], named: tuple[str, ...]
) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(record))
    result = llmtune("sft", *model, "--dataset", str(tmp_path / "d.jsonl"), "--dry_run")
    assert (result.code, [part for part in named if part not in result.err]) == (1, [])


@pytest.mark.parametrize("strategy", ["discard", "warning"])
def test_who_discards_or_is_warned_trains_on_the_rest(
    llmtune: Llmtune, model: tuple[str, ...], ten: Path, strategy: str
) -> None:
    flags = ("--check_dataset_strategy", strategy, "--dry_run", "--dataset_test_ratio", "0")
    result = llmtune("sft", *model, "--dataset", str(ten), *flags)
    assert (result.code, "5 training rows" in result.out) == (0, True)


def test_a_mapped_column_that_is_not_there_leaves_no_half_rows(
    llmtune: Llmtune, model: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "foobar.jsonl"
    path.write_text('{"foo": "What?", "bar": "That."}\n')
    words = ("inspect", *model, "--dataset", str(path), "--columns")
    result = llmtune(*words, '{"fooo": "query", "bar": "response"}')
    assert result.code == 1
    assert "--columns maps 'fooo' to 'query', and there is no such column: found bar, foo" in result.err
    assert llmtune(*words, '{"foo": "query", "bar": "response"}').code == 0


@pytest.mark.parametrize("form", ["file", "text"])
def test_datasets_of_a_flag_are_known_by_name(
    llmtune: Llmtune, model: tuple[str, ...], tmp_path: Path, form: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "What?", "response": "That."}\n')
    info = json.dumps({"mine": {"dataset_path": str(tmp_path / "rows.jsonl")}})
    (tmp_path / "info.json").write_text(info)
    given = str(tmp_path / "info.json") if form == "file" else info
    result = llmtune("inspect", *model, "--dataset", "mine", "--custom_dataset_info", given)
    assert (result.code, "That." in result.out) == (0, True), result.err


@pytest.mark.parametrize("written", ["{0}", "{0}#3", "{1},{0}"])
def test_a_comma_in_the_path_of_a_file_is_no_border(
    llmtune: Llmtune, model: tuple[str, ...], tmp_path: Path, written: str
) -> None:
    (tmp_path / "a, b").mkdir()
    path, other = tmp_path / "a, b" / "c,d.jsonl", tmp_path / "other.jsonl"
    path.write_text("\n".join(GOOD))
    other.write_text("\n".join(GOOD))
    selector = written.format(path, other)
    run_file = tmp_path / "run.json"
    run_file.write_text(json.dumps({"dataset": [selector]}))
    expected = f" {3 if '#' in written else 5 * len(written.split(',{'))} to train on"
    for flags in (("--dataset", selector), (str(run_file),)):
        result = llmtune("sft", *flags, *model, "--dry_run", "--dataset_test_ratio", "0")
        assert (result.code, expected in result.out) == (0, True), result


def test_a_tokenizer_with_several_chat_templates_keeps_them_in_its_checkpoints(
    llmtune: Llmtune, ten: Path, tmp_path: Path
) -> None:
    folder = tiny_model(tmp_path / "named")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    turns += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    tokenizer.chat_template = {"default": turns, "tool_use": "{% if tools %}{{ tools | tojson }}{% endif %}" + turns}
    tokenizer.save_pretrained(folder)
    flags = ("--model_id_or_path", str(folder), "--template_type", "jinja", "--check_dataset_strategy", "discard")
    flags += ("--add_output_dir_suffix", "false", "--output_dir", str(tmp_path / "out"))
    result = llmtune("sft", *flags, "--dataset", str(ten))
    assert result.code == 0, result.err
    saved = AutoTokenizer.from_pretrained(tmp_path / "out" / "checkpoint-1")
    assert saved.chat_template == tokenizer.chat_template
