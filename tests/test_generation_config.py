"""generation_config.json of a checkpoint: written by `sft`, overwritten by `infer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Llmtune
from transformers import GenerationConfig

from llmtune.train import checkpoint


@pytest.fixture
def trained(llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> Path:
    result = llmtune("sft", *tiny_flags, "--temperature", "0.9", "--top_k", "7")
    assert result.code == 0, result.err
    return next(tmp_path.glob("output/*/*/checkpoint-2"))


def read(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "generation_config.json").read_text())
    return found


def test_flags_of_training_are_what_other_tools_read(trained: Path) -> None:
    settings = GenerationConfig.from_pretrained(trained)
    assert (settings.temperature, settings.top_k, settings.top_p, settings.do_sample) == (0.9, 7, 0.7, True)
    assert settings.eos_token_id
    assert settings.pad_token_id is not None


def ask(llmtune: Llmtune, folder: Path, tmp_path: Path, *flags: str) -> str:
    (tmp_path / "ask.jsonl").write_text('{"query": "Hi"}\n')
    data = ("--val_dataset", str(tmp_path / "ask.jsonl"), "--max_new_tokens", "4", "--result_dir", str(tmp_path / "r"))
    result = llmtune("infer", "--ckpt_dir", str(folder), *data, *flags)
    assert result.code == 0, result.err
    return result.err


def test_answering_overwrites_them_and_the_checkpoint_stays_complete(
    llmtune: Llmtune, trained: Path, tmp_path: Path
) -> None:
    ask(llmtune, trained, tmp_path, "--do_sample", "false")
    assert (read(trained)["max_new_tokens"], read(trained)["do_sample"]) == (4, False)
    assert "temperature" not in read(trained)
    assert checkpoint.problem(trained) == ""


def test_answering_leaves_them_alone_when_told_to(llmtune: Llmtune, trained: Path, tmp_path: Path) -> None:
    before = read(trained)
    ask(llmtune, trained, tmp_path, "--overwrite_generation_config", "false")
    assert read(trained) == before


def test_a_checkpoint_that_cannot_be_written_answers_with_a_warning(
    llmtune: Llmtune, trained: Path, tmp_path: Path
) -> None:
    (trained / "generation_config.json").unlink()
    (trained / "generation_config.json").mkdir()  # also root cannot replace a folder by a file
    (trained / "generation_config.json" / "x").touch()
    assert "warning: cannot write" in ask(llmtune, trained, tmp_path)
