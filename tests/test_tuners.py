"""Every tuner from the command line: training to a third of the first loss, resuming, answering, merging."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Llmtune, without
from configuring import installed
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llmtune import InferArguments, SftArguments, infer_main, sft_main
from llmtune.testing import load_tiny, tiny_model

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUESTIONS = ("Who are you?", "What is two and two?", "Name a colour.", "Say yes.")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One tuner with what makes it learn the tiny model's four answers."""

    flags: tuple[str, ...]
    learning_rate: float = 3e-2
    adapter: bool = True
    """Whether a checkpoint holds less than the model."""
    merges: bool = True


def case(name: str, *flags: str, **facts: object) -> object:
    words = ("--sft_type", name, *flags)
    return pytest.param(Case(flags=words, **facts), id=" ".join([name, *flags[:1]]))  # type: ignore[arg-type]


EVERYWHERE = ("--target_modules", "ALL")
CASES = [
    case("lora", *EVERYWHERE),
    case("lora", "--use_dora", *EVERYWHERE),
    case("lora", "--lora_lr_ratio", "4", *EVERYWHERE, learning_rate=1e-2),
    case("longlora", *EVERYWHERE, learning_rate=1e-2),
    case("adalora", "--adalora_tfinal", "20", *EVERYWHERE),
    case("ia3", "--ia3_feedforward_modules", "down_proj", *EVERYWHERE, learning_rate=0.1),
    case("vera", "--vera_rank", "32", *EVERYWHERE),
    case("boft", *EVERYWHERE),
    case("fourierft", "--fourier_n_frequency", "200", "--fourier_scaling", "30", *EVERYWHERE, learning_rate=0.1),
    case("llamapro", "--llamapro_num_new_blocks", "2"),
    case("adapter", "--adapter_length", "16", merges=False),
    case("full", learning_rate=3e-3, adapter=False),
    case("full", "--lisa_activated_layers", "1", learning_rate=3e-3, adapter=False),
    case("full", "--use_galore", "--galore_rank", "16", learning_rate=1e-2, adapter=False),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64, initializer_range=0.2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"query": one, "response": "aaaaaaaa"}) + "\n" for one in QUESTIONS))
    return path


def common(case: Case, base: Path, rows: Path) -> list[str]:
    """One epoch of 60 steps over four rows, without the processes and the second forward pass of the defaults."""
    return [
        *("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(base), "--dtype", "fp32"),
        *("--dataset", f"{rows}#240", "--dataset_test_ratio", "0", *case.flags),
        *("--dataloader_num_workers", "0", "--gradient_checkpointing", "false"),
        *("--learning_rate", str(case.learning_rate), "--lr_scheduler_type", "constant", "--warmup_ratio", "0"),
        *("--batch_size", "4", "--gradient_accumulation_steps", "1", "--max_steps", "60", "--max_grad_norm", "0"),
        *("--logging_steps", "1", "--save_steps", "50", "--save_total_limit", "-1", "--save_only_model", "false"),
        *("--disable_tqdm", "--add_output_dir_suffix", "false"),
    ]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read(folder / "logging.jsonl") if "loss" in line]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(60).reshape(2, 30)).logits
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_tuner_from_training_to_the_merged_model(
    llmtune: Llmtune, case: Case, base: Path, rows: Path, tmp_path: Path
) -> None:
    flags, output = common(case, base, rows), tmp_path / "run"
    first = llmtune("sft", *flags, "--output_dir", str(output))
    assert first.code == 0, first.err
    checkpoint, log = output / "checkpoint-60", losses(output)
    assert log[-1] < log[0] / 3

    stored = sum(path.stat().st_size for path in checkpoint.glob("*model*.safetensors"))
    whole = (base / "model.safetensors").stat().st_size
    assert (stored < 0.8 * whole) == case.adapter

    os.rename(checkpoint, tmp_path / "first-time")
    again = llmtune("sft", *flags, "--resume_from_checkpoint", str(output / "checkpoint-50"))
    assert again.code == 0, again.err
    for path in (tmp_path / "first-time").glob("*model*.safetensors"):
        expected, found = load_file(path), load_file(checkpoint / path.name)
        assert expected.keys() == found.keys()
        assert all(found[name].equal(value) for name, value in expected.items())
    assert losses(output) == log

    ask = ("--val_dataset", str(rows), "--do_sample", "false", "--max_new_tokens", "4", "--result_dir")
    answered = llmtune("infer", "--ckpt_dir", str(checkpoint), *ask, str(tmp_path / "result"))
    assert answered.code == 0, answered.err
    answers = [line["response"] for line in read(next((tmp_path / "result").iterdir()))]
    assert "aaaa" in answers
    merge(llmtune, case, checkpoint, base)


def merge(llmtune: Llmtune, case: Case, checkpoint: Path, base: Path) -> None:
    merged = llmtune("export", "--merge_lora", "true", "--ckpt_dir", str(checkpoint))
    if not (case.adapter and case.merges):
        assert merged.code == 2
        assert "Traceback" not in merged.err
        return
    assert merged.code == 0, merged.err
    folder = checkpoint.with_name(f"{checkpoint.name}-merged")
    assert not list(folder.glob("adapter*"))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    difference = (logits(plain) - logits(load_tiny(base).model)).abs().max()
    assert difference > 0.1  # what was learned is there; that it is all there, the kit's tests of each tuner say


@pytest.mark.parametrize("name", ["lora", "longlora", "adalora", "ia3", "vera", "adapter"])
def test_a_tuner_over_a_base_in_four_bits(llmtune: Llmtune, base: Path, rows: Path, tmp_path: Path, name: str) -> None:
    case = Case(flags=("--sft_type", name, "--quantization_bit", "4", "--vera_rank", "32"))
    flags = without(common(case, base, rows), "--dtype", "--max_steps")
    result = llmtune("sft", *flags, "--dtype", "bf16", "--max_steps", "5", "--output_dir", str(tmp_path / "run"))
    assert result.code == 0, result.err
    log = losses(tmp_path / "run")
    assert log[-1] < log[0]
    ask = ("--val_dataset", str(rows), "--max_new_tokens", "2", "--result_dir", str(tmp_path / "result"))
    answered = llmtune("infer", "--ckpt_dir", str(tmp_path / "run" / "checkpoint-5"), *ask)
    assert answered.code == 0, answered.err


@pytest.mark.parametrize("case", CASES)
def test_a_tuner_from_python(case: Case, base: Path, rows: Path, tmp_path: Path) -> None:
    """The same flags as keywords, for two steps; the checkpoint answers."""
    words = without(common(case, base, rows), "--max_steps", "--adalora_tfinal")
    best = sft_main(SftArguments(**keywords([*words, "--max_steps", "2", "--output_dir", str(tmp_path / "run")])))
    assert best == str(tmp_path / "run" / "checkpoint-2")
    answers = infer_main(
        InferArguments(ckpt_dir=best, val_dataset=[str(rows)], max_new_tokens=2, result_dir=str(tmp_path / "result"))
    )
    assert answers is not None
    assert len(read(Path(answers))) == len(QUESTIONS)


def keywords(words: list[str]) -> dict[str, Any]:
    """Return what a script would write for the words of a command line."""
    given: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            flag = word.removeprefix("--")
            given[flag] = True
        else:
            given[flag] = [word] if flag in ("dataset", "target_modules", "ia3_feedforward_modules") else word
    return given


def test_the_tuners_are_listed_with_their_size_over_a_model(llmtune: Llmtune, base: Path) -> None:
    result = llmtune("tuners", "--model_id_or_path", str(base), "--json")
    assert result.code == 0, result.err
    sizes = {one["name"]: one for one in json.loads(result.out)}
    assert set(sizes) == set(installed().names("tuner"))
    values = load_file(base / "model.safetensors")
    total = sum(value.numel() for value in values.values())
    linear = [value.shape for name, value in values.items() if name.endswith("proj.weight")]
    adapter = sum(8 * (out + width) for out, width in linear)
    assert (sizes["full"]["trained"], sizes["lora"]["trained"]) == (total, adapter)
    assert sizes["full"]["memory"] == 2 * 4 * total  # weights, gradients and two moments in bf16
    assert sizes["lora"]["memory"] == 2 * total + 16 * adapter  # AdamW in fp32 for the adapter alone
    assert sizes["lora"]["memory_4bit"] < sizes["lora"]["memory"]
    assert sizes["full"]["memory_4bit"] is None
    assert "does not divide the 2 layers of the model" in sizes["llamapro"]["problem"]


@pytest.fixture
def two_adapters(llmtune: Llmtune, base: Path, rows: Path, tmp_path: Path) -> list[Path]:
    """Checkpoints of two runs over one base that learned to answer with other letters."""
    folders = []
    for letter in "ab":
        path = tmp_path / f"{letter}.jsonl"
        path.write_text(rows.read_text().replace("a" * 8, letter * 8))
        flags = common(Case(flags=("--sft_type", "lora", *EVERYWHERE)), base, path)
        result = llmtune("sft", *flags, "--output_dir", str(tmp_path / letter))
        assert result.code == 0, result.err
        folders.append(tmp_path / letter / "checkpoint-60")
    return folders


def test_several_adapters_answer_side_by_side(
    llmtune: Llmtune, two_adapters: list[Path], rows: Path, tmp_path: Path
) -> None:
    first, second = two_adapters
    result = llmtune(
        *("infer", "--ckpt_dir", str(first), "--lora_modules", f"other={second}", "--val_dataset", str(rows)),
        *("--do_sample", "false", "--max_new_tokens", "4", "--result_dir", str(tmp_path / "result")),
    )
    assert result.code == 0, result.err
    lines = read(next((tmp_path / "result").iterdir()))
    assert len(lines) == 2 * len(QUESTIONS)
    answers = {(line["adapter"], line["response"]) for line in lines}
    assert {("default-lora", "aaaa"), ("other", "bbbb")} <= answers
    assert "[response of other] bbbb" in result.out


def test_a_chat_goes_from_one_adapter_to_another(
    llmtune: Llmtune, two_adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = iter(["Say yes.", "adapter other", "clear", "Say yes.", "adapter third", "exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(words))
    first, second = two_adapters
    result = llmtune(
        *("infer", "--ckpt_dir", str(first), "--lora_modules", f"other={second}"),
        *("--do_sample", "false", "--max_new_tokens", "4"),
    )
    assert result.code == 0, result.err
    said = result.out.partition("help            show this\n")[2]
    assert said.split() == ["aaaa", "adapter:", "other", "the", "conversation", "is", "empty", "bbbb"]
    assert "there is no adapter 'third'; known are default-lora, other" in result.err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ("--sft_type boft --boft_block_size 5", "--boft_block_size 5 does not divide the 64 inputs of "),
        ("--sft_type adalora --adalora_tfinal 70", "--adalora_tinit 0 and --adalora_tfinal 70 leave none of the 60"),
        ("--sft_type lora --target_modules q_prj", "--target_modules q_prj: the model has no such layer"),
        ("--sft_type lora --target_regex .*attn", "--target_regex '.*attn': "),
        ("--sft_type lora --lisa_activated_layers 1", "--lisa_activated_layers works with --sft_type full only"),
        ("--sft_type lora --use_galore", "--use_galore works with --sft_type full only, found --sft_type lora"),
        ("--sft_type full --use_galore --lisa_activated_layers 1", "--use_galore and --lisa_activated_layers exclude"),
        ("--sft_type full --quantization_bit 4", "--sft_type full cannot train a quantized model"),
        ("--sft_type full --use_galore --quantization_bit 4", "--sft_type galore cannot train a quantized model"),
        ("--sft_type fourierft --fourier_n_frequency 5000", "--fourier_n_frequency 5000 is more than the "),
    ],
)
def test_wrong_use_is_refused_before_weights_load(
    llmtune: Llmtune, base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, problem: str
) -> None:
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)
    for name in ("safetensors.safe_open", "transformers.modeling_utils.safe_open"):
        monkeypatch.setattr(name, None, raising=False)
    result = llmtune(
        "sft", *common(Case(flags=tuple(flags.split())), base, rows), "--output_dir", str(tmp_path / "run")
    )
    assert result.code == 2, result.err
    assert problem in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_parameters_and_bytes(llmtune: Llmtune, base: Path, rows: Path, tmp_path: Path) -> None:
    flags = common(Case(flags=("--sft_type", "full")), base, rows)
    result = llmtune("sft", *flags, "--output_dir", str(tmp_path / "run"), "--dry_run")
    assert result.code == 0, result.err
    count = sum(value.numel() for value in load_file(base / "model.safetensors").values())
    assert f"{count:,} of {count:,} parameters are trained (100.00%)" in result.out
    assert f"{4 * 4 * count / 1e9:.2f} GB for weights, gradients and optimizer" in result.out


def test_noise_on_the_embeddings_is_there_while_training_only(
    llmtune: Llmtune, base: Path, rows: Path, tmp_path: Path
) -> None:
    """NEFTune changes the losses of training, not those of evaluation at the same weights."""
    seen = []
    for number, alpha in enumerate(("None", "0", "15")):
        folder = tmp_path / str(number)
        flags = without(common(Case(flags=("--sft_type", "lora", "--lora_dropout", "0")), base, rows), "--max_steps")
        flags += ["--max_steps", "1", "--neftune_noise_alpha", alpha, "--val_dataset", str(rows), "--eval_steps", "1"]
        result = llmtune(
            "sft",
            *without(flags, "--dataset_test_ratio", "--learning_rate"),
            "--learning_rate",
            "1e-12",
            "--output_dir",
            str(folder),
        )
        assert result.code == 0, result.err
        lines = read(folder / "logging.jsonl")
        seen.append([next(line[key] for line in lines if key in line) for key in ("loss", "eval_loss")])
    assert seen[0] == seen[1]
    assert seen[0][0] != pytest.approx(seen[2][0], rel=1e-3)
    assert seen[0][1] == pytest.approx(seen[2][1], rel=1e-6)
