"""The rules for values that the user left open (None or AUTO), as SWIFT documents them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmtune.model.device import auto_dtype

if TYPE_CHECKING:
    from llmtune.config.commands import CommandConfig
    from llmtune.plugins.catalogue import Entry


@dataclass(frozen=True)
class Rule:
    """The value that a flag gets where it is None or AUTO, and why."""

    flag: str
    value: Any
    reason: str


def rules(
    config: CommandConfig, *, model: Entry, template: str, tuner: Entry | None, world_size: int
) -> Iterator[Rule]:
    """Yield the rules of a command; those for flags it does not have, or that are set, do not apply."""
    if config.get("dtype") == "AUTO" and config.get("quantization_bit") is not None:
        yield Rule("dtype", *auto_dtype(model.facts.get("dtype")))
    yield Rule("template_type", template, f"the template of {model.name}")
    yield Rule("dataset_seed", config.get("seed"), "--seed")
    if "training" in type(config).model_fields and tuner is not None:
        yield from _training(config, model, tuner, world_size)
    yield from _inference(config)


def _training(config: CommandConfig, model: Entry, tuner: Entry, world_size: int) -> Iterator[Rule]:
    batch_size = config.get("batch_size")
    yield Rule("learning_rate", tuner.facts.get("learning_rate", 1e-4), f"tuner {tuner.name}")
    shared = config.get("sequence_parallel_size", 1)
    steps = math.ceil(16 / batch_size / (world_size // shared))
    ranks = f"{world_size} world_size" + (f" * {shared} sequence_parallel_size" if shared > 1 else "")
    yield Rule("gradient_accumulation_steps", steps, f"ceil(16 / {batch_size} batch_size / {ranks})")
    yield Rule("save_steps", config.get("eval_steps"), "--eval_steps")
    if config.get("predict_with_generate"):
        yield Rule("eval_batch_size", 1, "--predict_with_generate")
    else:
        yield Rule("eval_batch_size", batch_size, "--batch_size")
    whole = tuner.facts.get("saves") == "model" or config.get("deepspeed") is not None
    yield Rule("save_only_model", whole, "true for tuners that save whole models, and with --deepspeed")
    workers, system = (0, "Windows") if sys.platform == "win32" else (1, "not Windows")
    yield Rule("dataloader_num_workers", workers, system)
    multimodal = "vision" in model.facts.get("tags", ())
    yield Rule("lazy_tokenize", multimodal, "a multimodal model" if multimodal else "a text model")
    if world_size > 1:
        yield Rule("ddp_backend", *_ddp_backend())
    yield Rule("hub_model_id", f"{model.name}-{tuner.name}", "<model_type>-<sft_type>")
    if "rlhf" in type(config).model_fields:
        yield from _rlhf(config, model)


def _ddp_backend() -> tuple[str, str]:
    import torch

    return ("nccl", "CUDA is available") if torch.cuda.is_available() else ("gloo", "no CUDA device")


def _rlhf(config: CommandConfig, model: Entry) -> Iterator[Rule]:
    method = config.get("rlhf_type")
    yield Rule("beta", 2.0 if method == "simpo" else 0.1, f"--rlhf_type {method}")
    yield Rule("loss_type", {"simpo": "simpo", "kto": "kto"}.get(method, "sigmoid"), f"--rlhf_type {method}")
    if method not in ("cpo", "simpo", "orpo"):
        yield Rule("ref_model_type", model.name, "the trained model")


def _inference(config: CommandConfig) -> Iterator[Rule]:
    asks_dataset = bool(config.get("dataset") or config.get("val_dataset"))
    yield Rule("eval_human", not asks_dataset, "a dataset was given" if asks_dataset else "no dataset was given")
    has_checkpoint = config.get("ckpt_dir") is not None
    yield Rule("overwrite_generation_config", has_checkpoint, f"--ckpt_dir was {'' if has_checkpoint else 'not '}given")
    yield Rule("merge_device_map", "cpu", "saves GPU memory")
