"""What of a checkpoint goes to a hub, and what its page says."""

import json

import pytest
import yaml

from llmtune.train import checkpoint
from llmtune.train.model_card import ModelCard
from llmtune.train.published_files import lay_out, without_local_paths

STATE = (
    "micro_batches.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "tuner_state.safetensors",
)


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "weights" / "base"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def source(tmp_path, base):
    """A checkpoint with everything that one may hold."""
    arguments = {"model_type": "m", "model_id_or_path": str(base), "output_dir": str(tmp_path), "system": "/no_think"}
    files = {
        "adapter_model.safetensors": "weights",
        "adapter_config.json": json.dumps({"base_model_name_or_path": str(base), "r": 8}),
        "sft_args.json": json.dumps({**arguments, "dataset": [f"{tmp_path}#5", "alpaca-en#7"]}),
        "tokenizer.json": "{}",
        "tokenizer_config.json": json.dumps({"added": ["/tmp", "/"], "name_or_path": str(base)}),
        "global_step4/state.safetensors": "DeepSpeed's",
        **dict.fromkeys(STATE, "{}"),
    }
    final = tmp_path / "run" / "checkpoint-4"
    with checkpoint.writing(final) as staged:
        for name, text in files.items():
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_text(text)
    return final


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_only_resuming_needs_stays_here(source, tmp_path):
    lay_out(source, tmp_path / "out", base="owner/base")
    expected = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names(tmp_path / "out") == {*expected, "sft_args.json", checkpoint.MARK}
    assert checkpoint.problem(tmp_path / "out") == ""


def test_a_resumable_one_is_whole(source, tmp_path):
    lay_out(source, tmp_path / "out", base="owner/base", resumable=True)
    assert names(tmp_path / "out") == names(source)
    assert checkpoint.problem(tmp_path / "out") == ""


def test_weights_are_linked_and_outlive_the_checkpoint(source, tmp_path):
    lay_out(source, tmp_path / "out", base="owner/base")
    assert (tmp_path / "out" / "adapter_model.safetensors").samefile(source / "adapter_model.safetensors")
    checkpoint.remove(source)
    assert checkpoint.problem(tmp_path / "out") == ""


def test_a_file_system_without_links_gets_copies(source, tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    lay_out(source, tmp_path / "out", base="owner/base")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_text() == "weights"


def test_no_file_names_a_place_on_this_machine(source, tmp_path, base):
    lay_out(source, tmp_path / "out", base="owner/base", resumable=True)
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [text for text in texts if str(tmp_path) in text] == []
    assert str(base) in (source / "adapter_config.json").read_text()
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "owner/base",
        "r": 8,
    }
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert tokenizer == {"added": ["/tmp", "/"], "name_or_path": "owner/base"}
    arguments = json.loads((tmp_path / "out" / "sft_args.json").read_text())
    assert arguments == {
        "model_type": "m",
        "model_id_or_path": None,
        "output_dir": tmp_path.name,
        "system": "/no_think",
        "dataset": [f"{tmp_path.name}#5", "alpaca-en#7"],
    }


@pytest.mark.parametrize(
    "text", ["owner/name", "alpaca-en#5", "/no_think", "", "#5", "/", "//", "..", "a\nb", "x" * 9999, "\0"]
)
def test_what_is_no_path_stays(text):
    assert without_local_paths(text) == text


def test_an_adapter_of_another_program_gets_no_mark(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    lay_out(tmp_path, tmp_path.with_name("out"), base="owner/base")
    assert names(tmp_path.with_name("out")) == {"adapter_config.json"}


def test_the_page_says_what_hubs_read_and_what_people_read():
    card = ModelCard(
        title="mine",
        base="m-7b",
        base_id="owner/m-7b",
        tuner="lora",
        datasets=["a#5", "rows.jsonl"],
        dataset_ids=["owner/a"],
        packages=["llmtune"],
        settings={"lora_rank": 8, "target_modules": ["q", "v"], "system": "a|b\nc"},
    )
    text = card.text({"step": 4, "eval_loss": 0.5})
    _, front, page = text.split("---\n", 2)
    links = {"base_model": "owner/m-7b", "datasets": ["owner/a"], "tags": ["llmtune", "lora"]}
    assert yaml.safe_load(front) == links
    rows = ("| base model | m-7b (owner/m-7b) |", "| datasets | a#5, rows.jsonl |", "| step | 4 |", "| lora_rank | 8 |")
    assert [row for row in (*rows, "| target_modules | q v |", "| system | a\\|b c |") if row not in page] == []
    assert "This checkpoint" not in card.text()
