"""What transformers must know before it reads weights for ZeRO-3."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from transformers.integrations import HfDeepSpeedConfig

_FOR_TRAINING = ("train_batch_size", "gradient_accumulation_steps", "gradient_clipping", "optimizer", "scheduler")


def join() -> None:
    """Let DeepSpeed find torch's process group, without what only its developers want to know."""
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning, r"torch\.distributed")
    with redirect_stdout(StringIO()):
        import deepspeed

        deepspeed.init_distributed()


def in_parts(settings: Mapping[str, Any], dtype: str) -> HfDeepSpeedConfig:
    """Make `from_pretrained` share the weights as long as the result lives. The processes are connected already."""
    join()
    config = {name: copy.deepcopy(value) for name, value in settings.items() if name not in _FOR_TRAINING}
    config["train_micro_batch_size_per_gpu"] = 1
    for name in ("bf16", "fp16"):
        config[name] = {"enabled": dtype == name}
    return HfDeepSpeedConfig(config)
