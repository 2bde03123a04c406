"""The peers of bench/train_cpu.py: how each is started through its own entry, and where it says what it did.

Equal for all: the rows (conversations with their system prompt), 16 rows a step, LoRA (rank 8, alpha 32) on all linear
layers but the head, bf16 weights, learning rate 1e-4, one epoch, a log line every step, no evaluation, no checkpoints.
All else is each one's default: dropout on the adapters' input is 0.05 in llmtune and ms-swift, none in the others;
batches are of 1 row in llmtune and ms-swift and of 8 in the others; TRL and LLaMA-Factory compute under bf16 autocast
(the former's default; the latter keeps fp32 weights on a CPU without it), ms-swift too; llmtune, ms-swift, TRL and
LLaMA-Factory use gradient checkpointing, a Trainer does not.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from train_environments import FACTORY, SWIFT, TRAINER, TRL, Environment

ROWS_PER_STEP = 16
_LEARNING_RATE = "1e-4"
_RANK, _ALPHA = "8", "32"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a peer is given."""

    model: Path
    rows: Path
    """JSON lines: {"messages": [system, user, assistant]}."""
    folder: Path
    """Empty; for what the peer writes."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a peer says that it did."""

    seconds: float
    """From the first step's start to the last step's end."""
    tokens: int
    """Tokens of the rows that it trained on, padding left out."""
    losses: list[float]
    """One for each step."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to train."""

    environment: Environment | None = None
    """None is the one that runs the benchmark."""
    command: Callable[[Path, Work], list[Any]]
    """Folder of the environment's programs, work -> words."""
    read: Callable[[Work, str], Trained]
    """Work, all that was printed -> what it did."""


def _llmtune(programs: Path, work: Work, *more: str) -> list[Any]:
    return [
        *(programs / "llmtune", "sft", "--model_type", "smollm2-135m-instruct", "--model_id_or_path", work.model),
        *("--dataset", work.rows, "--dataset_test_ratio", "0", "--evaluation_strategy", "no"),
        *("--target_modules", "ALL", "--lora_rank", _RANK, "--lora_alpha", _ALPHA, "--dtype", "bf16"),
        *("--learning_rate", _LEARNING_RATE, "--num_train_epochs", "1", "--logging_steps", "1"),
        *("--save_strategy", "no", "--output_dir", work.folder / "out", "--add_output_dir_suffix", "false", *more),
    ]


def _read_llmtune(work: Work, output: str) -> Trained:
    return Trained(
        seconds=float(_found(r"trained \d+ steps in ([\d.]+) s", output)),
        tokens=int(_found(r"(\d+) tokens of which \d+ are targets", output)),
        losses=_losses(_lines(work.folder / "out" / "logging.jsonl")),
    )


def _swift(programs: Path, work: Work, *more: str) -> list[Any]:
    return [
        # SmolLM2 has no name of its own there: any family of plain Llama models, with the format it was trained on.
        *(programs / "swift", "sft", "--model", work.model, "--model_type", "llama", "--template", "chatml"),
        *("--dataset", work.rows, "--torch_dtype", "bfloat16", "--use_cpu", "true"),
        *("--target_modules", "all-linear", "--lora_rank", _RANK, "--lora_alpha", _ALPHA),
        *("--learning_rate", _LEARNING_RATE, "--num_train_epochs", "1", "--logging_steps", "1"),
        *("--include_num_input_tokens_seen", "true"),  # all tokens, but one row a batch has no padding
        *("--save_strategy", "no", "--output_dir", work.folder / "out", "--add_version", "false", *more),
    ]


def _read_swift(work: Work, output: str) -> Trained:
    lines = _lines(work.folder / "out" / "logging.jsonl")
    ended = next(line for line in lines if "train_runtime" in line)
    return Trained(seconds=ended["train_runtime"], tokens=ended["num_input_tokens_seen"], losses=_losses(lines))


def _factory(programs: Path, work: Work, *, batch_size: int) -> list[Any]:
    """Write the two files that it is told its work by."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    rows = {
        "file_name": str(work.rows),
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**tags, "system_tag": "system"},
    }
    (work.folder / "dataset_info.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    run = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(work.model),
        "template": "smollm2",
        "dataset": "rows",
        "dataset_dir": str(work.folder),
        "output_dir": str(work.folder / "out"),
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": int(_RANK),
        "lora_alpha": int(_ALPHA),
        "bf16": True,
        "use_cpu": True,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": ROWS_PER_STEP // batch_size,
        "learning_rate": float(_LEARNING_RATE),
        "num_train_epochs": 1,
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "no",
        "report_to": "none",
    }
    (work.folder / "run.yaml").write_text(json.dumps(run), encoding="utf-8")  # JSON is YAML
    return [programs / "llamafactory-cli", "train", work.folder / "run.yaml"]


def _read_factory(work: Work, output: str) -> Trained:
    results = json.loads((work.folder / "out" / "train_results.json").read_text(encoding="utf-8"))
    return Trained(
        seconds=results["train_runtime"],
        tokens=results["num_input_tokens_seen"],
        losses=_losses(_lines(work.folder / "out" / "trainer_log.jsonl")),
    )


def _script(programs: Path, work: Work, *, name: str, words: Iterable[Any]) -> list[Any]:
    paths = ("--model", work.model, "--rows", work.rows, "--folder", work.folder)
    lora = ("--rank", _RANK, "--alpha", _ALPHA, "--learning_rate", _LEARNING_RATE)
    return [programs / "python", Path(__file__).with_name(name), *paths, *lora, *words]


def _read_script(work: Work, output: str) -> Trained:
    return Trained(**json.loads(output.splitlines()[-1]))


def _trl(batch_size: int) -> Peer:
    words = ("--batch_size", batch_size, "--gradient_accumulation_steps", ROWS_PER_STEP // batch_size)
    return Peer(environment=TRL, command=partial(_script, name="train_peer_trl.py", words=words), read=_read_script)


def _loop(logits: str) -> Peer:
    words = ("--gradient_accumulation_steps", ROWS_PER_STEP, "--logits", logits)
    return Peer(
        environment=TRAINER, command=partial(_script, name="train_peer_loop.py", words=words), read=_read_script
    )


def _found(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    if match is None:
        sys.exit(f"nothing like {pattern!r} in what was printed:\n{output[-4000:]}")
    return match[1]


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text(encoding="utf-8").splitlines()))


def _losses(lines: Iterable[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if "loss" in line]


_NO_CHECKPOINTING = ("--gradient_checkpointing", "false")


def _without_checkpointing(command: Callable[..., list[Any]]) -> Callable[[Path, Work], list[Any]]:
    return lambda programs, work: command(programs, work, *_NO_CHECKPOINTING)


PEERS: dict[str, Peer] = {
    "llmtune": Peer(command=_llmtune, read=_read_llmtune),
    "ms-swift": Peer(environment=SWIFT, command=_swift, read=_read_swift),
    "trl": _trl(batch_size=8),
    "llamafactory": Peer(environment=FACTORY, command=partial(_factory, batch_size=8), read=_read_factory),
    "loop": _loop("all"),
    "llmtune-no-checkpointing": Peer(command=_without_checkpointing(_llmtune), read=_read_llmtune),
    "ms-swift-no-checkpointing": Peer(environment=SWIFT, command=_without_checkpointing(_swift), read=_read_swift),
    "trl-1x16": _trl(batch_size=1),
    "llamafactory-1x16": Peer(environment=FACTORY, command=partial(_factory, batch_size=1), read=_read_factory),
    "loop-target-logits": _loop("targets"),
}
"""`DEFAULTS`, and others that differ in what their names say, 1x16 in batches of one row."""
DEFAULTS = ("llmtune", "ms-swift", "trl", "llamafactory", "loop")
