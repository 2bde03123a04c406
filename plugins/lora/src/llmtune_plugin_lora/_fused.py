"""The forward and backward pass of a frozen linear layer and its update as one function, in the layer's own type.

peft casts the input of each update to the update's type (fp32 over bf16), draws dropout element by element and keeps
what all of these steps made. Here the update is computed as mixed precision does it: parameters in fp32, products in
the type of the input; and the backward pass needs the input, the mask of dropout and a product of the update's rank.
T tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.nn import functional as F


def fuse(model: Any) -> Any:
    """Let the adapted linear layers of a model of peft compute this way where it is the same; return the model."""
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is nn.Linear:
            module.forward = MethodType(_forward, module)
    return model


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    name = _only_adapter(layer)
    base = layer.get_base_layer()
    if args or kwargs or name is None or any(one.requires_grad for one in base.parameters()):
        return Linear.forward(layer, x, *args, **kwargs)  # type: ignore[no-any-return]
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    dropout = layer.lora_dropout[name]
    share = dropout.p if layer.training and isinstance(dropout, nn.Dropout) else 0.0
    apply: Any = _AdaptedLinear.apply
    output = apply(x.flatten(0, -2), base.weight, base.bias, down, up, layer.scaling[name], share)
    return output.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def _only_adapter(layer: Any) -> str | None:
    """Return the adapter that is all there is to compute: a plain one, alone, and not merged."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    plain = name in layer.lora_A and name not in layer.lora_variant and layer.lora_B[name].bias is None
    return name if plain else None


class _AdaptedLinear(torch.autograd.Function):
    """x W' + b + s (d(x) A') B' for `x` (T, I), `weight` W (O, I), A (R, I), B (O, R), scale s and dropout d."""

    @staticmethod
    def forward(
        context: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        share: float,
    ) -> torch.Tensor:
        kept_TI = _kept(x, share) if share else None
        scale = scale / (1 - share)  # what dropout scales its input by
        low_TR = _dropped(x, kept_TI) @ down.to(x.dtype).t()
        output_TO = F.linear(x, weight, bias).addmm_(low_TR, up.to(x.dtype).t(), alpha=scale)
        context.save_for_backward(x, kept_TI, low_TR, weight, down, up)
        context.scale = scale
        return output_TO

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, kept_TI, low_TR, weight, down, up = context.saved_tensors
        (gradient_TO,) = gradients
        gradient_TR = (gradient_TO @ up.to(gradient_TO.dtype)).mul_(context.scale)
        of_x = of_down = of_up = None
        if context.needs_input_grad[3]:
            of_down = (gradient_TR.t() @ _dropped(x_TI, kept_TI)).to(down.dtype)
        if context.needs_input_grad[4]:
            of_up = (gradient_TO.t() @ low_TR).to(up.dtype).mul_(context.scale)
        if context.needs_input_grad[0]:
            through_TI = _dropped(gradient_TR @ down.to(gradient_TO.dtype), kept_TI)
            of_x = through_TI.addmm_(gradient_TO, weight)
        return of_x, None, None, of_down, of_up, None, None


def _dropped(x: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    if kept is None:
        return x
    if kept.dtype == torch.bool:
        return torch.where(kept, x, 0)
    bits = _BITS[x.element_size()]
    return (x.view(bits) & kept.to(bits)).view(x.dtype)


def _kept(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return which elements dropout keeps: true; on a CPU all bits of an int16, none of those that it drops.

    There 16 random bits decide for each element, so that a share is exact to 1 / 65536. torch draws a double for
    each, which takes longer than the layer's own product, and operations on bool are slow (docs/performance.md).
    """
    if x.device.type != "cpu":
        return torch.rand(x.shape, device=x.device) >= share
    seed = int(torch.randint(2**62, ()))  # torch's state is what a resumed run goes on from
    words = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-x.numel() // 4)))
    last_dropped = round(share * 65536) - 32769
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    return drawn.clamp(last_dropped, last_dropped + 1).sub_(last_dropped).neg_()


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
