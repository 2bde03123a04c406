"""What one token costs in training, found by tracing the model's layers on the device "meta": nothing is computed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_TOKENS = 512
"""Of the sample that is traced: attention costs more for each token of a longer one."""
_REACHED = {"cpu": 0.3, "cuda": 0.4}
"""Share of the rate of matrix products that a whole step reaches: seen on a CPU (docs/performance.md), and on GPUs
what is usual (The Llama 3 Herd of Models, table 4: 0.38 to 0.43).
"""
_SECONDS = 0.2


@dataclass(frozen=True)
class StepCost:
    """What a token of a training step costs."""

    kept_bytes: int
    """Activations that the backward pass needs, with a target at every token, nothing computed again."""
    operations: int
    """Floating-point operations of matrix products in the forward and the backward pass."""


def step_cost(model: Any) -> StepCost | None:
    """Return the cost for a model on "meta" as the tuner prepared it, None where its layers cannot be traced."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        held.append(tensor)  # so that nobody else gets its number
        return tensor

    held: list[torch.Tensor] = []
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    ids = torch.zeros(1, _TOKENS, dtype=torch.int64, device="meta")
    training = model.training
    model.train()
    try:
        with _attention_without_values(model), FlopCounterMode(display=False) as counted:
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            logits.sum().backward()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # layers that need values, such as a choice of experts, or parameters of a quantizer
    finally:
        model.train(training)
        model.zero_grad(set_to_none=True)
    kept = sum(size for number, size in storages.items() if number not in weights) + logits.nbytes
    return StepCost(kept // _TOKENS, counted.get_total_flops() // _TOKENS)


@contextmanager
def _attention_without_values(model: Any) -> Iterator[None]:
    """Inside, attention keeps what FlashAttention keeps, and nobody looks for padding in masks."""
    from transformers import AttentionInterface, AttentionMaskInterface

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    AttentionInterface.register("llmtune-traced", _attend)
    AttentionMaskInterface.register("llmtune-traced", lambda **_: None)
    base.set_attn_implementation("llmtune-traced")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **_: Any) -> tuple[Any, None]:
    import torch

    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    output = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True)[0]
    return output.transpose(1, 2).contiguous(), None


def operations_per_second(dtype: Any) -> float:
    """Return what a training step reaches in `dtype` on this machine's first GPU, or its CPU."""
    import torch

    return _REACHED["cuda" if torch.cuda.is_available() else "cpu"] * rate_of_products(dtype)


def rate_of_products(dtype: Any) -> float:
    """Return the floating-point operations a second of large matrix products on this machine's GPU, or its CPU."""
    import torch

    device, size = ("cuda", 4096) if torch.cuda.is_available() else ("cpu", 1024)
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    rates: list[float] = []
    started = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - started < _SECONDS:
        began = time.perf_counter()
        float((left @ right)[0, 0])  # waits for a GPU
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return max(rates)
