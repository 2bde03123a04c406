"""The small commands import no plugin and no heavy library, whatever is installed and broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hundred_plugins import GOOD, write_plugins

FORBIDDEN = ("torch", "transformers", "pydantic", "datasets", "peft", "typer", "rich", "pluggy")
SCRIPT = """
import json, sys
from llmtune.cli.main import main
code = main(json.loads(sys.argv[1]))
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_plugins(folder)
    return folder


def run(site: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Return exit code, output and imported modules."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", SCRIPT, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    last = json.loads(done.stderr.splitlines()[-1])
    return last["code"], done.stdout + done.stderr, last["modules"]


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["models"], ["plugins"], ["tuners", "--json"], ["sft", "--help"], ["deploy", "-h"]],
    ids=" ".join,
)
def test_small_commands_import_no_plugin_and_nothing_heavy(site: Path, arguments: list[str]) -> None:
    code, _, modules = run(site, *arguments)
    assert code == 0
    assert [name for name in modules if name.startswith("llmtune_plugin")] == []
    assert [name for name in FORBIDDEN if name in modules] == []


def test_models_lists_every_model_of_working_plugins(site: Path) -> None:
    _, output, _ = run(site, "models")
    names = {line.split()[0] for line in output.splitlines()}
    assert {f"good-{number:02}-{size}b" for number in range(GOOD) for size in range(10)} <= names


@pytest.mark.parametrize("command", ["sft", "infer"])
def test_a_misspelt_flag_is_answered_before_anything_heavy_is_imported(site: Path, command: str) -> None:
    code, output, modules = run(site, command, "--modle_type", "x")
    assert code == 2
    assert "did you mean --model_type?" in output
    assert [name for name in FORBIDDEN if name in modules] == []


def test_a_misspelt_flag_of_a_plugin_is_found_without_importing_the_plugin(site: Path) -> None:
    code, output, modules = run(site, "sft", "--lora_rnak", "8")
    assert code == 2
    assert "did you mean --lora_rank?" in output
    assert [name for name in modules if name.startswith("llmtune_plugin")] == []
