"""Bottlenecks behind the MLPs of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from llmtune.api import UsageError, decoder_layers, did_you_mean

_ANOTHER = "choose another --sft_type for this model"


class Bottleneck(nn.Module):
    """x + up(act(down(x))), computed in fp32 whatever the dtype of x (..., width), which the result has too.

    `up` starts at zero, `down` at a normal distribution of deviation 0.01 cut off at two of them (section 3.6).
    """

    def __init__(self, width: int, length: int, act: str) -> None:
        super().__init__()
        self.activation_name = act
        self.down = nn.Linear(width, length, dtype=torch.float32)
        self.act = ACT2FN[act]
        self.up = nn.Linear(length, width, dtype=torch.float32)
        nn.init.trunc_normal_(self.down.weight, std=0.01, a=-0.02, b=0.02)
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        update: torch.Tensor = self.up(self.act(self.down(x.float())))
        return x + update.to(x.dtype)


class Bottlenecks(nn.ModuleList):
    """The bottlenecks behind one MLP, one for each name; the active one takes part in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.active = "default"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen: torch.Tensor = self[self.names.index(self.active)](x)
        return chosen


def check_activation(act: str) -> None:
    """Raise `UsageError` unless transformers knows the activation `act`."""
    if act not in ACT2FN:
        fix = did_you_mean(act, ACT2FN) or "choose one of " + ", ".join(sorted(ACT2FN))
        raise UsageError(f"--adapter_act {act}: transformers has no such activation", fix=fix)


def insert(model: Any, name: str, length: int, act: str) -> None:
    """Put a new bottleneck called `name` behind every MLP."""
    width = model.config.get_text_config().hidden_size
    for mlp in _mlps(model):
        if not hasattr(mlp, "adapters"):
            mlp.adapters = Bottlenecks()
            mlp.register_forward_hook(_adapt)
        mlp.adapters.append(Bottleneck(width, length, act).to(next(mlp.parameters()).device))
        mlp.adapters.names.append(name)


def _adapt(mlp: Any, inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # some experts give the scores of their router as well
        return mlp.adapters(output[0]), *output[1:]
    return mlp.adapters(output)


def bottlenecks(model: Any, name: str) -> Iterator[tuple[str, Bottleneck]]:
    """Yield (name of the MLP, its bottleneck called `name`)."""
    for full, module in model.named_modules():
        if isinstance(module, Bottlenecks) and name in module.names:
            found = module[module.names.index(name)]
            assert isinstance(found, Bottleneck)
            yield full.rpartition(".")[0], found


def activate(model: Any, name: str) -> None:
    for module in model.modules():
        if isinstance(module, Bottlenecks):
            module.active = name


def _mlps(model: Any) -> list[Any]:
    """Return the last part of each decoder layer that has weight matrices and no cache, which attention has."""
    found = []
    for layer in decoder_layers(model)[1]:
        computing = [part for part in layer.children() if any(one.ndim > 1 for one in part.parameters())]
        mlps = [part for part in computing if not any(hasattr(module, "layer_idx") for module in part.modules())]
        if not mlps:
            raise UsageError(f"adapter: {type(layer).__name__} of {type(model).__name__} has no MLP", fix=_ANOTHER)
        found.append(mlps[-1])
    return found
