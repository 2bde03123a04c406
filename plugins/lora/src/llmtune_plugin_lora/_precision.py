"""Precision of the adapters (`--lora_dtype`), and of layers that are trained whole (`--modules_to_save`)."""

from __future__ import annotations

from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def set_precision(model: Any, lora_dtype: str) -> Any:
    """Give the adapters of a peft model their type, and whole layers theirs; return the model.

    AUTO leaves the adapters as peft makes them: fp32 over a half-precision base.
    """
    if lora_dtype != "AUTO":
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(_DTYPES[lora_dtype])
    return keep_whole_layers_in_fp32(model)


def keep_whole_layers_in_fp32(model: Any) -> Any:
    """Hold the trained copies of whole layers in fp32 over a half-precision base; return the model.

    A norm's weight is near 1, where bf16 has steps of 0.008: updates of 1e-4 would all round away.
    The layer computes in fp32 and hands on what its base would have.
    """
    for wrapper in model.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        dtype = next(wrapper.original_module.parameters()).dtype
        for layer in wrapper.modules_to_save.values():
            if dtype in (torch.bfloat16, torch.float16):
                layer.float()
                layer.register_forward_pre_hook(_to_fp32)
                layer.register_forward_hook(_cast_to(dtype))
    return model


def _to_fp32(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.float() if torch.is_tensor(one) and one.is_floating_point() else one for one in inputs)


def _cast_to(dtype: torch.dtype) -> Any:
    def cast(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(dtype)

    return cast
