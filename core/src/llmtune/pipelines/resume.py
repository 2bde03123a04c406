"""Going on with a run: what was settled when it began stays, and what it left behind later goes aside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from llmtune.config.commands import SftConfig
from llmtune.config.section import Section
from llmtune.errors import CheckpointError, UsageError
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import ARGUMENTS, read_arguments

_SETTLED = ("model", "data", "template", "preprocessing", "loss", "quantization", "optimizer")
"""Sections that decide what is learned. All others say how it is computed, watched and kept."""
_FREE = {
    *("model_id_or_path", "model_revision", "local_repo_path", "use_flash_attn", "trust_remote_code"),
    *("device_map_config_path", "device_max_memory", "read_pickled_weights", "preprocess_num_proc"),
    "deepspeed",
    *("check_dataset_strategy", "max_dropped_ratio", "custom_dataset_info", "val_dataset", "val_dataset_sample"),
}
"""Flags of these sections that may change: where things lie, and what is only looked at."""
_FILES = ("dataset", "loss_scale_config_path")


def check_settings(config: SftConfig, start: Path, world_size: int, *, switches: Iterable[str]) -> None:
    """Raise `UsageError` where `config` asks for another run than the one that `start` is a checkpoint of.

    `switches` are the flags that turn tuners and extensions on, asked for or not (--use_galore ...).
    With --resume_only_model a new run begins from its weights: only what they are must fit.
    """
    if not (start / ARGUMENTS).is_file():
        return  # another program's
    off: dict[str, Any] = dict.fromkeys(switches)  # no options, and no value in sft_args.json
    before = off | read_arguments(start)
    now = off | config.flat()
    options = config.all_options().items()
    tuner = _flags(config.tuner, *(one for (kind, _), one in options if kind == "tuner"))
    if config.saving.resume_only_model:
        _raise(
            "--resume_only_model takes the weights as they are",
            _different(tuner, now, before),
            "leave these flags as they were; merge-lora makes a model of its own, which any tuner can start from",
        )
        return
    extensions = _flags(*(one for (kind, _), one in options if kind == "extension"))
    settled = _flags(*(getattr(config, name) for name in _SETTLED))
    _raise(
        f"--resume_from_checkpoint goes on with the run of {start}, whose settings were others",
        _different({*off, *tuner, *extensions, *settled, "seed"} - _FREE, now, before),
        "give these flags as they were, or add --resume_only_model true for a new run from its weights",
    )
    _check_step(config, start, world_size, before)


def _flags(*sections: Section) -> set[str]:
    return {flag for one in sections for flag in type(one).model_fields}


def _different(flags: Iterable[str], now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    for flag in sorted(flags):
        if flag in before and _comparable(flag, now[flag]) != _comparable(flag, before[flag]):
            yield f"--{flag} is {_shown(now[flag])}, was {_shown(before[flag])}"


def _comparable(flag: str, value: Any) -> Any:
    """A file may be called by another path; a switch may be off in several ways."""
    if flag in _FILES and value is not None:
        return [Path(one).name for one in ([value] if isinstance(value, str) else value)]
    return value or None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _raise(problem: str, lines: Iterator[str], fix: str) -> None:
    if found := list(lines):
        raise UsageError("\n  ".join([f"{problem}:", *found]), fix=fix)


def _check_step(config: SftConfig, start: Path, world_size: int, arguments: Mapping[str, Any]) -> None:
    """Compare the rows of a step and the length of the run with what the checkpoint has seen of them."""
    try:
        state = json.loads((start / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # another backend's
    training, readers = config.training, config.distributed.readers(world_size)
    rows = training.batch_size * (training.gradient_accumulation_steps or 1) * readers
    processes = len(list(start.glob("rng_state_*.pth"))) or 1
    before = (state.get("train_batch_size") or 0) * processes // (arguments.get("sequence_parallel_size") or 1)
    if before and rows != before:
        raise UsageError(
            f"a step of the run had {before} rows, and now has {rows}: --batch_size {training.batch_size} times "
            f"--gradient_accumulation_steps {training.gradient_accumulation_steps or 1} times {readers} processes",
            fix=f"choose them so that they make {before} again",
        )
    step = state.get("global_step", 0)
    if 0 < training.max_steps < step:
        raise UsageError(
            f"{start} is from step {step}, and --max_steps {training.max_steps} ends the run before it",
            fix="raise --max_steps, or resume from an earlier checkpoint",
        )


def abandon_later(start: Path) -> Path | None:
    """Move checkpoints that the run wrote after `start` out of the way; return the folder that has them now.

    They belong to a run that did not go on from here: they would be taken for newer or better ones.
    """
    run_folder, step = start.parent, checkpoint.step_of(start)
    later = [path for path in checkpoint.complete_checkpoints(run_folder) if checkpoint.step_of(path) > step]
    if not later:
        return None
    names = (run_folder / f"abandoned-{number}" for number in count(1))
    aside = next(path for path in names if not path.exists())
    try:
        aside.mkdir()
        for path in later:
            path.rename(aside / path.name)
    except OSError as error:
        raise CheckpointError(f"{later[0]} cannot be moved to {aside}: {error.strerror}") from error
    return aside
