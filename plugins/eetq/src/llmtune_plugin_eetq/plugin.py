"""Hooks of the quantizer `eetq`: 8-bit weights through transformers' EetqConfig.

EETQ has kernels for NVIDIA GPUs alone, and they read fp16. transformers takes them from the package `kernels`,
which downloads them, and peft knows the layers by the package `eetq`. None of it runs on a CPU, so what the tests of
this package see are its refusals and the keywords that it adds; a run on a GPU has not been measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmtune.api import Quantizer, RunContext, hookimpl


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    import torch

    if not torch.cuda.is_available():
        yield "--quant_method eetq needs an NVIDIA GPU, this machine has none; --quant_method hqq has 8 bits on a CPU"
    if config.get("dtype") not in ("AUTO", "fp16"):
        yield f"--dtype {config.get('dtype')}: eetq computes in fp16 only"


@hookimpl
def llmtune_adjust_plan(plan: Any, config: Any) -> Mapping[str, Any]:
    return {"dtype": "fp16"}


@hookimpl
def llmtune_create_quantizer(name: str, options: Any, run: RunContext) -> Quantizer:
    from llmtune_plugin_eetq._quantizer import EetqQuantizer

    return EetqQuantizer()
