"""A model that DeepSpeed trains: gradients and the optimizer's state shared among ranks, with ZeRO-3 parameters too."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmtune.api import CheckpointError, ranks
from llmtune_plugin_hf._adapted import base_of
from llmtune_plugin_hf._spread import Copies
from llmtune_plugin_hf._whole import whole_parameters

_OWN = ("optimizer", "scheduler")
"""Sections of a configuration that --optim, --learning_rate and --lr_scheduler_type take the place of."""


class Zero(Copies):
    """DeepSpeed's engine, as transformers makes it of the model; `settings` is a configuration of it."""

    in_parts = True

    def __init__(self, settings: Mapping[str, Any], model: Any) -> None:
        super().__init__()
        config = {name: copy.deepcopy(value) for name, value in settings.items() if name not in _OWN}
        config["zero_allow_untested_optimizer"] = True  # transformers' optimizers
        config.setdefault("zero_force_ds_cpu_optimizer", False)
        self.shares_parameters = config.get("zero_optimization", {}).get("stage") == 3
        _join()
        dtype = base_of(model).dtype
        self.settings = {"deepspeed": config, "bf16": dtype == torch.bfloat16, "fp16": dtype == torch.float16}
        self.left_out = [name for name in _OWN if name in settings]

    def place(self, model: Any, device: torch.device) -> None:
        if self.left_out and ranks.is_first():
            print(f"note: {' and '.join(self.left_out)} of --deepspeed have no effect: --optim and its kin say it")
        if not self.shares_parameters:
            super().place(model, device)

    @contextlib.contextmanager
    def callable(self, model: Any) -> Iterator[Any]:
        """There is no engine yet that gathers what a module needs."""
        if not self.shares_parameters:
            yield base_of(model)
            return
        with _gathering(base_of(model)):
            yield base_of(model)

    def without_sync(self, loop: Any, model: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def backward(self, loop: Any, loss: torch.Tensor, *, last: bool) -> None:
        """accelerate would update the parameters as well, before anybody has looked at the loss."""
        engine = loop.model_wrapped
        engine.set_gradient_accumulation_boundary(is_boundary=last)
        engine.backward(loss, scale_wrt_gas=False)

    def update(self, loop: Any) -> None:
        loop.model_wrapped.step()

    def clip(self, model: Any, limit: float) -> torch.Tensor:
        """Return the norm; the engine has clipped already."""
        norm = model.get_global_grad_norm()
        return torch.as_tensor(0.0 if norm is None else norm)

    def whole(self, loop: Any, *, everything: bool) -> contextlib.AbstractContextManager[None]:
        if not self.shares_parameters:
            return contextlib.nullcontext()
        loop.model_wrapped.empty_partition_cache()  # an evaluation leaves parameters that were fetched for a next pass
        return whole_parameters(loop.model, _gathered, everything=everything)

    def check_resumable(self, folder: Path) -> None:
        """Raise `CheckpointError` for a checkpoint of another number of ranks: each stored a part of the state."""
        stored = len(list(folder.glob("global_step*/*zero_pp_rank_*_optim_states.pt")))
        if stored != ranks.count():
            raise CheckpointError(
                f"DeepSpeed cannot resume {folder} with {ranks.count()} processes: it was saved by {stored or 'none'}",
                fix=f"NPROC_PER_NODE={stored}" if stored else "train it on without --deepspeed",
            )


def _join() -> None:
    """Let DeepSpeed find torch's process group, without what only its developers want to know."""
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning, r"torch\.distributed")
    with contextlib.redirect_stdout(io.StringIO()):
        import deepspeed

        deepspeed.init_distributed()


def _gathered(parameter: nn.Parameter) -> torch.Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


@contextlib.contextmanager
def _gathering(model: nn.Module) -> Iterator[None]:
    """Inside, each module gathers its own parameters when it is called."""
    import deepspeed

    open_now: list[Any] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        gathered = deepspeed.zero.GatheredParameters(list(module.parameters(recurse=False)))
        gathered.__enter__()
        open_now.append(gathered)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        open_now.pop().__exit__(None, None, None)

    owners = [one for one in model.modules() if any(hasattr(own, "ds_id") for own in one.parameters(recurse=False))]
    handles = [one.register_forward_pre_hook(enter) for one in owners]
    handles += [one.register_forward_hook(leave) for one in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
