"""Metrics: how close generated answers come to those of the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Metric(ABC):
    """Measures the answers that a model gives while it is trained (--predict_with_generate)."""

    best: str
    """Name of the value that decides which checkpoint is the best."""
    higher_is_better: bool = True
    """Whether the best checkpoint has the highest of that value, or the lowest."""

    @abstractmethod
    def measure(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Return values by name, over all pairs: the answers of the model and, in the same order, of the rows.

        Called on rank 0, with the answers of all ranks. An answer of the model may be empty.
        """
