"""Hooks of the tuner `galore`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmtune.api import RunContext, Tuner, hookimpl, world

_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")


@hookimpl
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    from llmtune_plugin_galore._tuner import GaloreTuner
    from llmtune_plugin_galore.options import GaloreOptions

    return GaloreTuner(options or GaloreOptions(), run)


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    """GaLore brings its own AdamW; updates inside of backward exclude what needs all gradients at once."""
    if config.get("optim", "adamw_torch") not in _OPTIMIZERS:
        yield f"--optim {config.get('optim')}: GaLore is AdamW; use {', '.join(_OPTIMIZERS)}"
    if not config.get("galore_optim_per_parameter"):
        return
    given = "--galore_optim_per_parameter updates each parameter in the backward pass"
    if (config.get("gradient_accumulation_steps") or 1) > 1:
        yield f"{given}: set --gradient_accumulation_steps 1"
    if config.get("max_grad_norm", 0.0) > 0:
        yield f"{given}, before the norm of all gradients is known: set --max_grad_norm 0"
    if world()[1] > 1:
        yield f"{given}, before the gradients of {world()[1]} processes are averaged: use one process"


@hookimpl
def llmtune_adjust_plan(plan: Any, config: Any) -> Mapping[str, Any]:
    """On a CPU, train in fp32, which is faster there, as for `full`."""
    import torch

    found: dict[str, Any] = {} if torch.cuda.is_available() else {"dtype": "fp32"}
    return {**found, "gradient_accumulation_steps": 1} if config.get("galore_optim_per_parameter") else found
