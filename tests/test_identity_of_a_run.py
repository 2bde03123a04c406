"""A run that is resumed with other data, tokenizer or base than it began with is refused, with the place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Llmtune
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from llmtune.testing.tiny import tiny_model

ROWS = [{"query": f"What is {number}?", "response": f"{number}."} for number in range(12)]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


@pytest.fixture
def run(llmtune: Llmtune, model: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs `sft` on data.jsonl; returns exit code and what it said."""
    write(tmp_path / "data.jsonl", ROWS)
    flags = ["--model_id_or_path", str(model), "--template_type", "chatml", "--dataset", str(tmp_path / "data.jsonl")]
    flags += ["--output_dir", str(tmp_path / "out"), "--add_output_dir_suffix", "false", "--save_total_limit", "-1"]
    flags += ["--batch_size", "1", "--gradient_accumulation_steps", "1", "--save_steps", "2", "--max_steps", "6"]

    def call(*more: str) -> tuple[int, str]:
        result = llmtune("sft", *flags, *more)
        return result.code, result.err

    return call


def changed(place: int) -> list[dict[str, str]]:
    return [{**row, "response": "0?"} if number == place else row for number, row in enumerate(ROWS)]


STREAM = ("--streaming", "true", "--dataset_test_ratio", "0", "--streaming_val_size", "0")


@pytest.mark.parametrize(
    "ways",
    [("--dataset_test_ratio", "0.2"), ("--lazy_tokenize", "true", "--dataset_test_ratio", "0"), ("--packing", "true")],
    ids=["split", "lazy", "packed"],
)
def test_one_character_of_one_row_is_found_with_its_place(
    run: Callable[..., tuple[int, str]], tmp_path: Path, ways: tuple[str, ...]
) -> None:
    assert run(*ways)[0] == 0
    again = ("--resume_from_checkpoint", str(tmp_path / "out" / "checkpoint-2"))
    for place in (0, 7, 11):
        write(tmp_path / "data.jsonl", changed(place))
        code, said = run(*ways, *again)
        assert code == 2
        assert f"(…/data.jsonl:{place + 1})".replace("…", str(tmp_path)) in said
    write(tmp_path / "data.jsonl", ROWS)
    code, said = run(*ways, *again)
    assert code == 0, said


def test_data_that_grew_or_shrank_is_refused(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert run()[0] == 0
    for rows in (ROWS[:-1], [*ROWS, ROWS[0]]):
        write(tmp_path / "data.jsonl", rows)
        code, said = run("--resume_from_checkpoint", str(tmp_path / "out" / "checkpoint-2"))
        assert (code, "the training data is not what the run began with" in said) == (2, True)


def test_of_a_stream_the_rows_that_were_read_must_be_the_same(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert run(*STREAM)[0] == 0
    again = (*STREAM, "--resume_from_checkpoint", str(tmp_path / "out" / "checkpoint-2"))
    shutil.copytree(tmp_path / "out", tmp_path / "kept")
    write(tmp_path / "data.jsonl", changed(3))
    code, said = run(*again)
    assert (code, f"differs first in row 4 ({tmp_path / 'data.jsonl'}:4)" in said) == (2, True), said
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "kept").rename(tmp_path / "out")
    write(tmp_path / "data.jsonl", [*ROWS, *ROWS])  # what comes later is nobody's yet
    code, said = run(*again)
    assert code == 0, said


def test_another_tokenizer_or_base_is_refused(run: Callable[..., tuple[int, str]], model: Path, tmp_path: Path) -> None:
    assert run()[0] == 0
    again = ("--resume_from_checkpoint", str(tmp_path / "out" / "checkpoint-2"))
    kept = shutil.copytree(model, tmp_path / "kept")
    tensors = load_file(model / "model.safetensors")
    save_file(
        {name: one + torch.ones_like(one) for name, one in tensors.items()},
        model / "model.safetensors",
        {"format": "pt"},
    )
    code, said = run(*again)
    assert (code, "the weights in model.safetensors are not those of the base" in said) == (2, True), said
    shutil.copy(kept / "model.safetensors", model / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["What"])
    tokenizer.save_pretrained(model)
    code, said = run(*again)
    assert (code, "the tokenizer or its vocabulary is not the one" in said) == (2, True), said
