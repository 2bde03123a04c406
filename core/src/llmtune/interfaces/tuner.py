"""Tuners: which parameters of a model are trained, and how they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Tuner(ABC):
    """Makes a model trainable. `model` is a `torch.nn.Module` throughout."""

    @abstractmethod
    def prepare(self, model: Any) -> Any:
        """Return the model to train: adapters added, everything else frozen."""

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


def trainable_parameters(model: Any) -> tuple[int, int]:
    """Return (trainable, all) parameter counts."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trains in counts if trains), sum(count for count, _ in counts)
