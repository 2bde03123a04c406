"""Hooks of the tuner `lora`."""

from __future__ import annotations

import logging
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    # peft imports bitsandbytes wherever it is installed, which then warns about an optional CPU kernel.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from llmtune_plugin_lora._tuner import LoraTuner
    from llmtune_plugin_lora.options import LoraOptions

    return LoraTuner(options or LoraOptions(), run)
