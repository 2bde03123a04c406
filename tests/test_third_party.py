"""The package and the file that docs/plugin-authors.md builds work as the page says.

The files are taken from the page itself: a plain `pip install` of a wheel built in a temporary
folder, or one file for --custom_register_path, and no edit anywhere else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Result, llmtune_process

from llmtune.testing.tiny import tiny_model

PAGE = Path(__file__).parent.parent / "docs" / "plugin-authors.md"
TRAIN = ("--dataset", "garden-notes", "--sft_type", "norms", "--norms_also", "lm_head", "--max_steps", "4")


def files_of_the_page() -> dict[str, str]:
    """Return path -> content of every code block that has a bold file name above it."""
    blocks = re.findall(
        r"^\*\*`([^`]+)`\*\*\n\n```\w*\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return dict(blocks)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("garden")
    write(folder, files_of_the_page())
    return folder


@pytest.fixture(scope="module")
def site(garden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(garden)], check=True
    )
    wheel = next(wheels.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one-file plugin, its data and a tiny model called sprout."""
    folder = tmp_path_factory.mktemp("workplace")
    files = files_of_the_page()
    data = files["src/llmtune_plugin_garden/notes.jsonl"]
    write(folder, {"garden.py": files["garden.py"], "loss.py": files["loss.py"], "notes.jsonl": data})
    tiny_model(folder / "sprout")
    return folder


def works(result: Result) -> str:
    assert result.code == 0, result.err
    return result.out


def trained(output: Path) -> Path:
    (found,) = output.rglob("checkpoint-4")
    assert (found / "norms.safetensors").is_file()
    return found


def test_the_page_has_the_files_of_a_package() -> None:
    assert {"pyproject.toml", "src/llmtune_plugin_garden/llmtune-plugin.toml", "garden.py"} <= set(files_of_the_page())


@pytest.mark.parametrize(
    ("listing", "name"),
    [("models", "sprout-35k"), ("datasets", "garden-notes"), ("templates", "garden"), ("tuners", "norms")],
)
def test_an_installed_wheel_is_listed(site: Path, listing: str, name: str) -> None:
    found = json.loads(works(llmtune_process(listing, name, "--json", site=site)))
    assert [(one["name"], one["dist"], one["version"]) for one in found] == [(name, "llmtune-plugin-garden", "0.1.0")]


def test_its_command_works_and_stands_in_the_help(site: Path) -> None:
    assert "Print garden notes as rows (llmtune-plugin-garden)" in works(llmtune_process("--help", site=site))
    row = json.loads(works(llmtune_process("notes", "--count", "1", site=site)))
    assert row["messages"][1]["content"] == "Sow it outdoors."


def test_its_flags_stand_in_the_help_of_sft(site: Path) -> None:
    text = works(llmtune_process("sft", "--help", site=site, COLUMNS="160"))
    assert "--hemisphere" in text
    assert "--norms_also" in text


def test_it_trains_and_its_checkpoint_answers(site: Path, workplace: Path, tmp_path: Path) -> None:
    model = ("--model_type", "sprout-35k", "--model_id_or_path", workplace / "sprout")
    works(llmtune_process("sft", *model, *TRAIN, "--hemisphere", "south", "--output_dir", tmp_path, site=site))
    (tmp_path / "ask.jsonl").write_text('{"query": "When do I sow basil?"}\n')
    flags = ("--val_dataset", tmp_path / "ask.jsonl", "--max_new_tokens", "4", "--result_dir", tmp_path / "result")
    works(llmtune_process("infer", "--ckpt_dir", trained(tmp_path), *flags, site=site))
    assert list((tmp_path / "result").glob("*.jsonl"))


def test_the_doctor_and_validate_find_nothing_wrong(site: Path, garden: Path) -> None:
    assert "garden (llmtune-plugin-garden 0.1.0): ok" in works(
        llmtune_process("plugins", "doctor", "garden", site=site)
    )
    assert works(llmtune_process("plugins", "validate", garden)).rstrip().endswith(": valid")


def in_workplace(monkeypatch: pytest.MonkeyPatch, workplace: Path, *arguments: object) -> str:
    monkeypatch.chdir(workplace)
    return works(llmtune_process(*map(str, arguments)))


def test_the_same_content_works_as_one_file(monkeypatch: pytest.MonkeyPatch, workplace: Path, tmp_path: Path) -> None:
    register = ("--custom_register_path", "garden.py")
    assert "sprout-35k" in in_workplace(monkeypatch, workplace, "models", "sprout", *register)
    row = json.loads(in_workplace(monkeypatch, workplace, "notes", "--count", "1", *register))
    assert row["messages"][0]["content"] == "What do I do with basil in May?"
    said = in_workplace(
        monkeypatch, workplace, "sft", *register, "--model_type", "sprout-35k", *TRAIN, "--output_dir", tmp_path
    )
    assert "--custom_register_path" in said.splitlines()[-1], "the line to try it names the file"
    checkpoint = trained(tmp_path)
    assert json.loads((checkpoint.parent / "run.json").read_text())["plan"]["local"] == ["garden.py"]
    (workplace / "ask.jsonl").write_text('{"query": "When do I sow basil?"}\n')
    ask = ("--val_dataset", "ask.jsonl", "--max_new_tokens", "4")
    assert "1 answers" in in_workplace(monkeypatch, workplace, "infer", *register, "--ckpt_dir", checkpoint, *ask)


def test_an_event_hook_of_a_file_is_called(monkeypatch: pytest.MonkeyPatch, workplace: Path, tmp_path: Path) -> None:
    register = ("--custom_register_path", "garden.py", "loss.py")
    flags = ("--model_type", "sprout-35k", *TRAIN, "--output_dir", tmp_path)
    assert "######" in in_workplace(monkeypatch, workplace, "sft", *register, *flags)
