"""Tuners: which parameters of a model are trained, how they are updated, and how they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.config.optimizer import OptimizerSection


class Tuner(ABC):
    """Makes a model trainable. `model` is a `torch.nn.Module` throughout."""

    whole_steps = False
    """Whether all rows of a step must be in one backward pass, because parameters are updated in it."""

    @abstractmethod
    def prepare(self, model: Any) -> Any:
        """Return the model to train: adapters added, everything else frozen.

        Before any weights are loaded it is called once with a model whose tensors are on the device "meta",
        so that wrong options are refused early and parameters can be counted.
        """

    @abstractmethod
    def save(self, model: Any, folder: Path) -> None:
        """Write what is needed to get the trained model back, as safetensors and JSON."""

    @abstractmethod
    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        """Return `model` (the base) with what `save` wrote into `folder`.

        A tuner that stores whole models ignores the base's weights.
        """

    def merge(self, model: Any) -> Any:
        """Return a plain model with the same outputs and no trace of the tuner."""
        return model

    def to_peft(self, folder: Path, target: Path) -> None:
        """Write the adapter in `folder`, which another program wrote, into the folder `target` in peft's form."""
        raise UsageError(
            "adapters of this --sft_type have no other form to be converted from", fix="leave out --to_peft_format"
        )

    # --- several adapters over one base -----------------------------------------------------------

    def add(self, model: Any, folder: Path, name: str) -> Any:
        """Return a model that `load` gave with one more adapter, which `save` wrote into `folder`, as `name`."""
        raise NotImplementedError

    def choose(self, model: Any, name: str | None) -> None:
        """Let a model answer with the adapter `name`; None is the one that `load` gave."""
        raise NotImplementedError

    # --- while a model is trained; `step` counts optimizer steps from 0 ---------------------------

    def learning_rates(self, model: Any) -> Mapping[str, float]:
        """Return parameter name -> factor on the learning rate; the others learn at 1."""
        return {}

    def optimizer(self, model: Any, settings: OptimizerSection) -> Any:
        """Return a `torch.optim.Optimizer` in place of the one that --optim names, or None."""
        return None

    def before_step(self, model: Any, optimizer: Any, step: int) -> None:  # noqa: B027 - most have nothing to do
        """Called before the first forward pass of a step."""

    def after_step(self, model: Any, step: int) -> None:  # noqa: B027
        """Called when the optimizer has updated the parameters, while their gradients are still there."""

    def penalty(self, model: Any) -> Any:
        """Return a scalar tensor that is added to the loss of each step, or None."""
        return None

    def training_state(self, model: Any) -> Mapping[str, Any]:
        """Return tensors that a resumed run needs, besides the parameters and the optimizer's state."""
        return {}

    def load_training_state(self, model: Any, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take back what `training_state` gave."""

    def optimizer_values(self, model: Any) -> int:
        """Return how many numbers the optimizer keeps at most: two moments for each trained parameter."""
        return 2 * trainable_parameters(model)[0]


def trainable_parameters(model: Any) -> tuple[int, int]:
    """Return (trainable, all) parameter counts."""
    counts = [(parameter_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trains in counts if trains), sum(count for count, _ in counts)


def parameter_size(parameter: Any) -> int:
    """Return how many numbers a parameter has, also where this process holds a part of it alone (ZeRO-3)."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
