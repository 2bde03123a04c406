"""A model whose parameters, gradients and optimizer state are shared among ranks: torch's FSDP2 (`fully_shard`).

transformers and accelerate are told that the model looks after itself: on a CPU they train copies instead, without
a word (accelerate 1.15).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from llmtune.api import UsageError, decoder_layers, ranks
from llmtune_plugin_hf._adapted import base_of
from llmtune_plugin_hf._fsdp_settings import FsdpSettings
from llmtune_plugin_hf._spread import Copies
from llmtune_plugin_hf._whole import whole_parameters

_FEW = 0.1
"""Share of the model's parameters up to which gradients stay whole between the passes of a step: it saves sending
them after each, and takes that much more memory."""


class Shards(Copies):
    """Each rank has a part of every parameter; layers are gathered when they are computed."""

    in_parts = True

    def __init__(self, settings: FsdpSettings) -> None:
        super().__init__()
        self.fsdp = settings
        self.trains_few = False

    def place(self, model: Any, device: torch.device) -> None:
        if self.fsdp.left_out and ranks.is_first():
            print(f"note: {', '.join(self.fsdp.left_out)} of --fsdp_config have no effect with FSDP2")
        counts = [(one.numel(), one.requires_grad) for one in model.parameters()]
        self.trains_few = sum(count for count, trained in counts if trained) <= _FEW * sum(count for count, _ in counts)
        units = [*units_of(model, self.fsdp), model]
        check_dtypes(model, units[:-1])
        policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if self.fsdp.offload else OffloadPolicy()
        mesh = mesh_of(device, self.fsdp.sharers)
        for unit in units:
            fully_shard(unit, mesh=mesh, reshard_after_forward=not self.fsdp.gathered_once, offload_policy=policy)
        for name, buffer in model.named_buffers():
            if buffer.device != device:
                owner, _, last = name.rpartition(".")
                model.get_submodule(owner)._buffers[last] = buffer.to(device)

    @contextlib.contextmanager
    def callable(self, model: Any) -> Iterator[Any]:
        """Only the outermost module gathers what belongs to no layer."""
        yield model
        reshard(model)  # else the optimizer would be made for gathered parameters

    def owns_gradients(self) -> bool:
        return True

    def without_sync(self, loop: Any, model: Any) -> contextlib.AbstractContextManager[None]:
        loop.accelerator.gradient_state._set_sync_gradients(False)
        return _not_reduced(model) if self.trains_few else contextlib.nullcontext()

    def clip(self, model: Any, limit: float) -> torch.Tensor:
        gradients = [local(one.grad) for one in model.parameters() if one.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).double() if gradients else torch.zeros(())
        copies = ranks.count() // self.fsdp.sharers
        (squares,) = ranks.total([float(norm) ** 2])
        whole = (torch.tensor(squares, dtype=torch.float64) / copies).sqrt()
        scale = min(1.0, limit / (float(whole) + 1e-6))
        if scale < 1:
            torch._foreach_mul_(gradients, scale)
        return whole

    def whole(self, loop: Any, *, everything: bool) -> contextlib.AbstractContextManager[None]:
        reshard(loop.model)
        return whole_parameters(loop.model, whole_tensor, everything=everything)

    def save_optimizer(self, loop: Any, folder: Path) -> bool:
        """Write the same file as a run whose ranks have copies."""
        state = loop.optimizer.state_dict()
        state["state"] = {
            number: {name: _on_first(value) for name, value in one.items()} for number, one in state["state"].items()
        }
        if ranks.is_first():
            torch.save(state, folder / OPTIMIZER_NAME)
            torch.save(loop.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
        return True

    def load_optimizer(self, loop: Any, folder: Path) -> bool:
        state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", mmap=True, weights_only=True)
        parameters = [one for group in loop.optimizer.param_groups for one in group["params"]]
        for number, one in state["state"].items():
            like = parameters[number]
            state["state"][number] = {name: _shard_like(like, value) for name, value in one.items()}
        loop.optimizer.load_state_dict(state)
        loop.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, map_location="cpu", weights_only=True))
        return True


def units_of(model: Any, settings: FsdpSettings) -> list[nn.Module]:
    """Return the modules that are gathered one at a time."""
    if not settings.layer_classes:
        return [*decoder_layers(base_of(model))[1]]
    wanted = set(settings.layer_classes)
    found = [one for one in model.modules() if type(one).__name__ in wanted]
    missing = wanted - {type(one).__name__ for one in found}
    if missing:
        layer = type(decoder_layers(base_of(model))[1][0]).__name__
        raise UsageError(
            f"--model_layer_cls_name {' '.join(sorted(missing))}: the model has no such layers", fix=f"try: {layer}"
        )
    return found


def check_dtypes(model: nn.Module, units: list[nn.Module]) -> None:
    """Raise `UsageError` where trained parameters that are gathered together have several types."""
    inside = {id(one) for unit in units for one in unit.parameters()}
    outside = [one for one in model.parameters() if id(one) not in inside]
    for together in (*(list(unit.parameters()) for unit in units), outside):
        dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in together if one.requires_grad})
        if len(dtypes) > 1:
            raise UsageError(
                f"--fsdp sends the trained parameters of a layer together, and these are {' and '.join(dtypes)}",
                fix="train them in one type: --dtype fp32, or another --lora_dtype",
            )


def reshard(model: nn.Module) -> None:
    """Let go of what a forward pass without a backward pass leaves gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def mesh_of(device: torch.device, sharers: int) -> DeviceMesh:
    """Return all ranks in groups of `sharers` that share one copy of the model."""
    size = ranks.count()
    if sharers == size:
        return init_device_mesh(device.type, (size,))
    return init_device_mesh(device.type, (size // sharers, sharers), mesh_dim_names=("copies", "shards"))


def whole_tensor(parameter: torch.Tensor) -> torch.Tensor:
    """Return all of a parameter; every rank calls it."""
    return on_its_mesh(parameter).full_tensor() if isinstance(parameter, DTensor) else parameter


def on_its_mesh(tensor: DTensor) -> DTensor:
    """Return the shards where their mesh can send them: offloaded ones lie in the RAM."""
    return tensor.to(tensor.device_mesh.device_type)  # type: ignore[return-value]


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _on_first(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = whole_tensor(value)
    return whole.cpu() if ranks.is_first() else None


def _shard_like(parameter: torch.Tensor, value: Any) -> Any:
    """Return this rank's part of a state; numbers, such as a count of steps, are the same everywhere."""
    if not (isinstance(parameter, DTensor) and torch.is_tensor(value) and value.shape == parameter.shape):
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    sharded = distribute_tensor(value.to(mesh.device_type), mesh, placements, src_data_rank=None)
    return sharded.to(parameter.device)


@contextlib.contextmanager
def _not_reduced(model: Any) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
