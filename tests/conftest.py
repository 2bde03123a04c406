"""Fixtures that the end-to-end tests share: the command line in process, and a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import NAMES, Llmtune, Result

from llmtune.cli.main import main
from llmtune.testing.tiny import tiny_model


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how often tests/test_killed_runs.py kills each run")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


@pytest.fixture
def llmtune(capfd: pytest.CaptureFixture[str]) -> Llmtune:
    """Run a command in this process: libraries are imported once for all tests."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer."""
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_flags(tiny: Path, tmp_path: Path) -> list[str]:
    """Flags that train the tiny model on self-cognition for two steps, in fp32."""
    return [
        *("--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(tiny)),
        *("--dataset", "self-cognition#20", *NAMES, "--output_dir", str(tmp_path / "output"), "--dtype", "fp32"),
        *("--max_steps", "2", "--gradient_accumulation_steps", "2", "--disable_tqdm"),
    ]
