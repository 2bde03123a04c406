"""Whole parameters on rank 0, where each rank has a part of them alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from llmtune.api import ranks

Gather = Callable[[nn.Parameter], torch.Tensor]
"""Called on every rank with the same parameter: returns all of it."""


@contextlib.contextmanager
def whole_parameters(model: nn.Module, gather: Gather, *, everything: bool) -> Iterator[None]:
    """Inside, parameters (those that are trained, or all) are whole tensors on the CPU of rank 0.

    They are gathered one by one: no GPU holds more than one of them beside its parts. Tied ones stay tied.
    """
    put_back: list[tuple[nn.Module, str, nn.Parameter]] = []
    whole: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not (everything or parameter.requires_grad):
                continue
            if id(parameter) not in whole:
                gathered = gather(parameter)
                kept = gathered.detach().to("cpu", copy=True) if ranks.is_first() else torch.empty(0)
                whole[id(parameter)] = nn.Parameter(kept, requires_grad=parameter.requires_grad)
            put_back.append((module, name, parameter))
    if not ranks.is_first():
        yield
        return
    for module, name, parameter in put_back:
        module._parameters[name] = whole[id(parameter)]
    try:
        yield
    finally:
        for module, name, parameter in put_back:
            module._parameters[name] = parameter
