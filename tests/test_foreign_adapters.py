"""Adapters that SWIFT or peft wrote, read through the command line; llmtune's own damaged ones stay refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Llmtune
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmtune.train import checkpoint

NOTE = "note: llmtune did not write "
MODEL_TYPE = "smollm2-135m-instruct"


@pytest.fixture
def peft_folder(tiny: Path, tmp_path: Path) -> Path:
    """What `PeftModel.save_pretrained` writes."""
    torch.manual_seed(0)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=64, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config).save_pretrained(tmp_path / "by-peft")
    return tmp_path / "by-peft"


@pytest.fixture
def swift_folder(peft_folder: Path, tmp_path: Path) -> Path:
    """The same adapter as SWIFT 2 to 4 write it with `--tuner_backend swift`, in a checkpoint of SWIFT 2."""
    folder = tmp_path / "by-swift"
    (folder / "default").mkdir(parents=True)
    settings = json.loads((peft_folder / "adapter_config.json").read_text())
    own = {"swift_type": "LORA", "use_qa_lora": False, "use_merged_linear": False, "enable_lora": None}
    own |= {"lora_dtype": None, "lorap_lr_ratio": 16.0, "lorap_emb_lr": 1e-6, "model_key_mapping": None}
    (folder / "default" / "adapter_config.json").write_text(json.dumps(settings | own))
    tensors = load_file(peft_folder / "adapter_model.safetensors")
    named = {
        re.sub(r"\.(lora_[AB])\.", r".\1.default.", name.removeprefix("base_model.model.")): value
        for name, value in tensors.items()
    }
    save_file(named, folder / "default" / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "configuration.json").write_text("{}")
    return folder


@pytest.fixture(params=["peft", "swift"])
def foreign(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


@pytest.fixture
def of_the_base(tiny: Path) -> list[str]:
    return ["--model_type", MODEL_TYPE, "--model_id_or_path", str(tiny), "--dtype", "fp32"]


@pytest.fixture
def answers(llmtune: Llmtune, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Ask one question; return what was printed on stdout and on stderr."""
    (tmp_path / "ask.jsonl").write_text('{"query": "Who are you?"}\n')

    def answers(*flags: str) -> tuple[str, str]:
        asked = ("--val_dataset", str(tmp_path / "ask.jsonl"), "--do_sample", "false", "--max_new_tokens", "8")
        result = llmtune("infer", *flags, *asked, "--result_dir", str(tmp_path / "results"))
        assert result.code == 0, result.err
        return result.out.partition("[response]")[2].partition("1 answers")[0], result.err

    return answers


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(40).reshape(2, 20)).logits
    return found


def test_it_answers_with_one_note(
    answers: Callable[..., tuple[str, str]], foreign: Path, peft_folder: Path, of_the_base: list[str]
) -> None:
    text, err = answers(*of_the_base, "--ckpt_dir", str(foreign))
    assert err.count(NOTE) == 1
    assert text == answers(*of_the_base, "--ckpt_dir", str(peft_folder))[0]
    assert text != answers(*of_the_base)[0]


@pytest.mark.parametrize("command", [["merge-lora"], ["export", "--merge_lora", "true"]], ids=["merge-lora", "export"])
def test_it_is_merged(
    llmtune: Llmtune, foreign: Path, peft_folder: Path, tiny: Path, of_the_base: list[str], command: list[str]
) -> None:
    result = llmtune(*command, *of_the_base, "--ckpt_dir", str(foreign))
    assert result.code == 0, result.err
    assert NOTE in result.err
    merged = AutoModelForCausalLM.from_pretrained(f"{foreign}-merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(base, peft_folder))
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)


def test_swifts_form_is_exported_as_a_checkpoint_in_pefts(
    llmtune: Llmtune,
    answers: Callable[..., tuple[str, str]],
    swift_folder: Path,
    peft_folder: Path,
    of_the_base: list[str],
) -> None:
    result = llmtune("export", *of_the_base, "--ckpt_dir", str(swift_folder), "--to_peft_format", "true")
    assert result.code == 0, result.err
    written = Path(f"{swift_folder}-peft")
    assert not checkpoint.problem(written)
    found, expected = (load_file(one / "adapter_model.safetensors") for one in (written, peft_folder))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    text, err = answers("--ckpt_dir", str(written))  # model, template and the rest come from it
    assert NOTE not in err
    assert text == answers(*of_the_base, "--ckpt_dir", str(peft_folder))[0]


def test_what_is_in_pefts_form_is_not_exported_to_it(
    llmtune: Llmtune, peft_folder: Path, of_the_base: list[str]
) -> None:
    result = llmtune("export", *of_the_base, "--ckpt_dir", str(peft_folder), "--to_peft_format", "true")
    assert result.code == 2
    assert "is in peft's form already" in result.err
    assert not list(peft_folder.parent.glob("*by-peft-peft*"))


def test_converting_nothing_or_another_kind_says_what_is_missing(
    llmtune: Llmtune, swift_folder: Path, of_the_base: list[str]
) -> None:
    result = llmtune("export", *of_the_base, "--to_peft_format", "true")
    assert result.code == 2
    assert "add --ckpt_dir" in result.err
    flags = ["--ckpt_dir", str(swift_folder), "--to_peft_format", "true", "--sft_type", "full"]
    result = llmtune("export", *of_the_base, *flags)
    assert result.code == 2
    assert "have no other form" in result.err


@pytest.mark.parametrize("name", ["sft_args.json", "args.json"])
class TestWhatSwiftSaysOfIt:
    def test_model_and_template_are_taken(
        self, llmtune: Llmtune, swift_folder: Path, tiny: Path, tmp_path: Path, name: str
    ) -> None:
        stored = {"model_type": MODEL_TYPE, "template_type": "chatml", "sft_type": "lora", "system": "Be brief."}
        (swift_folder / name).write_text(json.dumps(stored))
        result = llmtune("export", "--ckpt_dir", str(swift_folder), "--model_id_or_path", str(tiny), "--to_peft_format")
        assert result.code == 0, result.err
        template = json.loads(Path(f"{swift_folder}-peft", "template.json").read_text())
        assert (template["name"], template["default_system"]) == ("chatml", "Be brief.")

    def test_code_and_names_that_nobody_knows_here_are_not(
        self, llmtune: Llmtune, swift_folder: Path, of_the_base: list[str], tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "code.py").write_text("raise SystemExit('code of the folder ran')")
        stored = {"model_type": "qwen2_5-of-swift", "template_type": "qwen2_5-of-swift", "trust_remote_code": True}
        stored |= {"custom_register_path": [str(tmp_path / "code.py")], "model_id_or_path": "/nowhere", "dtype": "x"}
        (swift_folder / name).write_text(json.dumps(stored))
        result = llmtune("export", *of_the_base, "--ckpt_dir", str(swift_folder), "--to_peft_format", "true")
        assert result.code == 0, result.err
        written = json.loads(Path(f"{swift_folder}-peft", "sft_args.json").read_text())
        assert (written["model_type"], written["trust_remote_code"]) == (MODEL_TYPE, False)


class TestWhatStaysRefused:
    @pytest.fixture
    def trained(self, llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path) -> Path:
        result = llmtune("sft", *tiny_flags)
        assert result.code == 0, result.err
        return next(tmp_path.glob("output/*/*/checkpoint-2"))

    def test_a_checkpoint_of_llmtunes_without_its_mark(self, llmtune: Llmtune, trained: Path) -> None:
        (trained / "complete.json").unlink()
        result = llmtune("infer", "--ckpt_dir", str(trained))
        assert result.code == 2
        assert "is incomplete: it has no completion mark" in result.err

    def test_a_checkpoint_of_llmtunes_that_lost_a_file(self, llmtune: Llmtune, trained: Path) -> None:
        (trained / "template.json").unlink()
        result = llmtune("infer", "--ckpt_dir", str(trained))
        assert result.code == 2
        assert "template.json is missing" in result.err

    def test_one_that_was_being_written(self, llmtune: Llmtune, trained: Path) -> None:
        staged = trained.with_name(".unfinished-checkpoint-4")
        staged.mkdir()
        for path in trained.glob("adapter*"):
            shutil.copy(path, staged)
        result = llmtune("infer", "--ckpt_dir", str(staged))
        assert result.code == 2
        assert "is incomplete" in result.err

    def test_the_folder_of_a_run(self, llmtune: Llmtune, trained: Path) -> None:
        result = llmtune("infer", "--ckpt_dir", str(trained.parent))
        assert result.code == 2
        assert "is a run folder, not a checkpoint" in result.err

    def test_going_on_with_a_run_of_others(self, llmtune: Llmtune, swift_folder: Path, tiny_flags: list[str]) -> None:
        (swift_folder / "optimizer.pt").write_bytes(b"pickled")
        result = llmtune("sft", *tiny_flags, "--resume_from_checkpoint", str(swift_folder))
        assert result.code == 2
        assert "it has no completion mark" in result.err


def test_training_with_swifts_backend_writes_pefts_form_and_says_so(
    llmtune: Llmtune, tiny_flags: list[str], tmp_path: Path
) -> None:
    result = llmtune("sft", *tiny_flags, "--tuner_backend", "swift")
    assert result.code == 0, result.err
    assert result.err.count("note: adapters are written in peft's form, which SWIFT reads as well") == 1
    settings = json.loads(next(tmp_path.glob("output/*/*/checkpoint-2/adapter_config.json")).read_text())
    assert settings["peft_type"] == "LORA"
