"""Every wrong input gets one clear message, no traceback, and the right exit code."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import NAMES, Llmtune, llmtune_process

from llmtune.errors import UnknownName
from llmtune.plugins.catalogue import discover
from llmtune.plugins.entry_points import installed_entry_points

MODEL = ("--model_type", "smollm2-135m-instruct")


def fails(result: object, code: int, *parts: str) -> None:
    """Assert exit code and that the error names every part."""
    assert result.code == code, result.err  # type: ignore[attr-defined]
    assert "Traceback" not in result.err  # type: ignore[attr-defined]
    for part in parts:
        assert part in result.err, result.err  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model_type", "smollm2-135m-instuct"], ["unknown model", "did you mean smollm2-135m-instruct"]),
        ([*MODEL, "--dataset", "self-cogniton"], ["unknown dataset", "did you mean self-cognition"]),
        ([*MODEL, "--template_type", "chatmll"], ["unknown template", "did you mean chatml"]),
        ([*MODEL, "--sft_type", "lroa"], ["unknown tuner", "did you mean lora"]),
        ([*MODEL, "--quantization_bit", "4", "--quant_method", "bmb"], ["unknown quantizer", "did you mean bnb"]),
        ([*MODEL, "--train_backend", "hff"], ["unknown trainer", "did you mean hf"]),
        ([], ["no model was chosen", "--model_type"]),
        ([*MODEL, "--model_id_or_path", "/no/such/folder"], ["/no/such/folder", "no such folder"]),
        ([*MODEL, "--lora_rank", "eight"], ["--lora_rank", "'eight'"]),
        ([*MODEL, "--lora_rank", "0", "--lora_dropout", "2"], ["--lora_rank", "--lora_dropout"]),
        ([*MODEL, "--batch_size", "1", "2"], ["--batch_size takes one value", "'2'"]),
        ([*MODEL, "--init_lora_weights", "maybe"], ["--init_lora_weights", "gaussian"]),
        (["train.txt", *MODEL], ["unexpected argument 'train.txt'"]),
        ([*MODEL, "-x"], ["unknown option -x"]),
        ([*MODEL, "--sft_type", "full", "--quantization_bit", "4"], ["cannot train a quantized model"]),
        ([*MODEL, "--save_total_limit", "0"], ["--save_total_limit", "the last checkpoint stays"]),
        ([*MODEL, "--deepspeed", '{"zero_optimisation": {}}'], ["--deepspeed", "zero_optimisation"]),
        ([*MODEL, "--deepspeed", '{"zero_optimization": {"stage": 7}}'], ["--deepspeed", "'stage': 7", "(0, 1, 2, 3)"]),
        ([*MODEL, "--quantization_bit", "3"], ["--quantization_bit 3", "4, 8"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_code_2_and_writes_nothing(
    llmtune: Llmtune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = [] if "--dataset" in flags else ["--dataset", "self-cognition", *NAMES]
    fails(llmtune("sft", *flags, *dataset), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_self_cognition_without_names_says_which_flags(llmtune: Llmtune) -> None:
    fails(llmtune("sft", *MODEL, "--dataset", "self-cognition"), 2, "--model_name and --model_author", "小智 Ada")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        (
            '{"query": "a", "response": "b"}\n{"query": "a", "respo\n',
            ["data.jsonl:2", "malformed JSON", "expected one object per line"],
        ),
        ('{"query": "a"}\n', ["data.jsonl:1", "no answer"]),
        ('{"foo": "a", "bar": "b"}\n', ["data.jsonl:1", "bar ('b'), foo ('a')", "query: query, prompt", "--columns"]),
        ("[1, 2]\n", ["data.jsonl:1", "named columns"]),
    ],
    ids=["empty", "malformed", "no answer", "unknown columns", "not an object"],
)
def test_bad_data_names_file_line_and_what_was_expected(
    llmtune: Llmtune, tmp_path: Path, tiny: Path, content: str, parts: list[str]
) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    flags = (*MODEL, "--model_id_or_path", str(tiny), "--output_dir", str(tmp_path / "out"))
    fails(llmtune("sft", *flags, "--dataset", str(tmp_path / "data.jsonl")), 1, *parts)
    assert not (tmp_path / "out").exists()


def test_a_few_bad_rows_are_counted_and_the_others_trained(
    llmtune: Llmtune, tmp_path: Path, tiny_flags: list[str]
) -> None:
    good = '{"query": "a", "response": "b"}\n'
    (tmp_path / "data.jsonl").write_text(good * 30 + '{"query": "only"}\n')
    result = llmtune("sft", *tiny_flags, "--dataset", str(tmp_path / "data.jsonl"))
    assert result.code == 0, result.err
    assert "dropped 1" in result.out
    assert "data.jsonl:31" in result.out


def test_a_missing_file_is_named(llmtune: Llmtune) -> None:
    fails(llmtune("sft", *MODEL, "--dataset", "missing/data.jsonl"), 2, "missing/data.jsonl", "no such file")


def test_an_output_folder_below_a_file_cannot_be_written(
    llmtune: Llmtune, tmp_path: Path, tiny_flags: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    flags = [word for word in tiny_flags if word != "--output_dir" and not word.endswith("/output")]
    fails(
        llmtune("sft", *flags, "--output_dir", str(tmp_path / "file" / "output")),
        1,
        "--output_dir",
        "not a folder",
    )


WITHOUT_PERMISSION = """
import os, sys
from pathlib import Path
from llmtune.train.run_folder import check_writable
if os.getuid() == 0:  # root may write everywhere
    os.setuid(65534)
check_writable(Path(sys.argv[1]))
"""


def test_an_output_folder_without_permission() -> None:
    with tempfile.TemporaryDirectory() as locked:  # pytest's own folders are closed to other users
        Path(locked).chmod(0o555)
        command = [sys.executable, "-c", WITHOUT_PERMISSION, f"{locked}/output"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "OutputError" in done.stderr
    assert "Permission denied" in done.stderr
    assert f"chmod u+w {locked}" in done.stderr


@pytest.mark.parametrize("state", ["missing", "incomplete", "run folder"])
def test_a_checkpoint_that_is_not_one(llmtune: Llmtune, tmp_path: Path, tiny_flags: list[str], state: str) -> None:
    assert llmtune("sft", *tiny_flags).code == 0
    saved = next((tmp_path / "output").rglob("checkpoint-2"))
    expected = {
        "missing": "does not exist",
        "incomplete": "adapter_model.safetensors is missing",
        "run folder": "not a checkpoint",
    }
    folder = {"missing": saved.with_name("checkpoint-9"), "incomplete": saved, "run folder": saved.parent}[state]
    if state == "incomplete":
        (saved / "adapter_model.safetensors").unlink()
    fails(llmtune("infer", "--ckpt_dir", str(folder)), 2, str(folder), expected[state])


def test_a_hub_that_cannot_be_reached_is_named_with_the_way_out(llmtune: Llmtune, tmp_path: Path) -> None:
    """Both hubs are pointed at a closed port; this model is on no package index."""
    closed = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "MODELSCOPE_DOMAIN": "127.0.0.1:9",
        "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9",
    }
    result = llmtune_process(
        *(
            "sft",
            "--model_type",
            "smollm2-360m-instruct",
            "--dataset",
            "self-cognition",
            *NAMES,
            "--output_dir",
            str(tmp_path / "out"),
        ),
        **closed,
    )
    fails(result, 1, "modelscope", "huggingface", "did not answer", "--hub NAME", "--offline", "--model_id_or_path")
    assert not (tmp_path / "out").exists()


def test_offline_says_what_is_not_in_the_cache(llmtune: Llmtune, tmp_path: Path) -> None:
    flags = ("--model_type", "smollm2-360m-instruct", "--dataset", "self-cognition", *NAMES, "--offline")
    fails(llmtune("sft", *flags), 1, "not in the cache", "without --offline")


def test_a_name_of_a_plugin_that_is_switched_off_says_so() -> None:
    result = llmtune_process("sft", *MODEL, "--dataset", "self-cognition", *NAMES, LLMTUNE_DISABLE_PLUGINS="smollm")
    fails(result, 2, "smollm", "switched off")


@pytest.mark.parametrize(
    ("kind", "name", "dist"),
    [
        ("model", "smollm2-135m-instruct", "llmtune-plugin-smollm"),
        ("template", "chatml", "llmtune-plugin-template-chatml"),
        ("dataset", "self-cognition", "llmtune-plugin-dataset-self-cognition"),
        ("tuner", "lora", "llmtune-plugin-lora"),
        ("engine", "pt", "llmtune-plugin-transformers"),
    ],
)
def test_a_name_of_a_plugin_that_is_not_installed_gives_the_pip_command(kind: str, name: str, dist: str) -> None:
    others = [point for point in installed_entry_points() if point.dist != dist]
    with pytest.raises(UnknownName) as caught:
        discover(entry_points=others).find(kind, name)
    assert caught.value.exit_code == 2
    assert f"pip install {dist}" in str(caught.value)


def test_a_flag_of_a_tuner_that_the_run_does_not_use_is_a_warning(llmtune: Llmtune, tiny_flags: list[str]) -> None:
    result = llmtune("sft", *tiny_flags, "--sft_type", "full", "--lora_rank", "4")
    assert result.code == 0, result.err
    assert "--lora_rank has no effect: it belongs to tuner lora" in result.err


def test_a_run_file_key_that_does_not_exist_is_named_with_its_line(llmtune: Llmtune, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model_type: smollm2-135m-instruct\nlora_rnak: 8\n")
    fails(llmtune("sft", str(tmp_path / "run.yaml")), 2, "run.yaml:2", "lora_rnak", "did you mean lora_rank")
