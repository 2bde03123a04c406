"""How a model lies on the ranks of a run: a copy on each (here), shards of FSDP2, parts of DeepSpeed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmtune.api import UsageError
from llmtune_plugin_hf._adapted import base_of


class Copies:
    """Every rank has the whole model, and gradients are averaged (DDP); also a run of one process.

    The others are subclasses. `model` is the one that the tuner prepared, `loop` the running `Loop`.
    """

    in_parts = False
    """Whether ranks wait for each other in every pass, because each has a part of the model alone."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        """What `TrainingArguments` need to know."""

    def place(self, model: Any, device: torch.device) -> None:
        """Put the model where it is trained. Called before anything is computed."""
        base = base_of(model)
        if len(places := {str(place) for place in getattr(base, "hf_device_map", {}).values()}) > 1:
            raise UsageError(
                f"training a model that lies on several devices ({', '.join(sorted(places))}) is not available yet",
                fix="leave out --device_map_config_path and --device_max_memory; "
                "NPROC_PER_NODE=2 with --fsdp full_shard shares a model among GPUs",
            )
        base.to(device)

    @contextlib.contextmanager
    def callable(self, model: Any) -> Iterator[Any]:
        """Give a model that can be called before training has begun."""
        yield base_of(model)

    def check_resumable(self, folder: Path) -> None:
        """Raise `CheckpointError` for a checkpoint that this number of ranks cannot go on from."""

    def owns_gradients(self) -> bool:
        """Whether nobody else is to average gradients."""
        return False

    def without_sync(self, loop: Any, model: Any) -> contextlib.AbstractContextManager[None]:
        loop.accelerator.gradient_state._set_sync_gradients(False)
        return loop.accelerator.no_sync(model)  # type: ignore[no-any-return]

    def backward(self, loop: Any, loss: torch.Tensor, *, last: bool) -> None:
        loop.accelerator.gradient_state._set_sync_gradients(last)
        loop.accelerator.backward(loss)

    def update(self, loop: Any) -> None:
        """Update the parameters where the optimizer's own step does not."""

    def clip(self, model: Any, limit: float) -> torch.Tensor | None:
        """Scale gradients down to a norm of `limit` and return the norm; None: as transformers does it."""
        return None

    def whole(self, loop: Any, *, everything: bool) -> contextlib.AbstractContextManager[None]:
        """Enclose the saving of a model by rank 0: there parameters are whole, all of them or those that are trained.

        Every rank enters it.
        """
        return contextlib.nullcontext()

    def save_optimizer(self, loop: Any, folder: Path) -> bool:
        """Write the optimizer's state; False: as transformers does it."""
        return False

    def load_optimizer(self, loop: Any, folder: Path) -> bool:
        """Take back what `save_optimizer` wrote; False: as transformers does it."""
        return False
