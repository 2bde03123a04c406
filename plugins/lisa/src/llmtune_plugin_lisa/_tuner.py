"""LISA: a few layers at a time.

Reference: Pan et al., Layerwise Importance Sampling for Memory-Efficient LLM Fine-Tuning (arXiv:2403.17919).
"""

from __future__ import annotations

import random
from typing import Any

from torch import nn

from llmtune.api import RunContext, UsageError, WholeModelTuner, decoder_layers
from llmtune_plugin_lisa.options import LisaOptions

_LAYERS_OF_THE_PAPER = 2


class LisaTuner(WholeModelTuner):
    """Always trains embedding, final norm and output head; of the decoder layers a few, drawn anew from time to time.

    What is drawn depends on the seed and the step alone, so that ranks and resumed runs draw the same.
    """

    def __init__(self, options: LisaOptions, run: RunContext) -> None:
        self.activated = options.lisa_activated_layers or _LAYERS_OF_THE_PAPER  # 0 where --sft_type lisa was asked for
        self.interval = options.lisa_step_interval
        self.seed = run.seed

    def prepare(self, model: Any) -> Any:
        """Everything requires a gradient at first, so that the optimizer is told about all layers."""
        count = len(decoder_layers(model)[1])
        if self.activated > count:
            raise UsageError(
                f"--lisa_activated_layers {self.activated}: the model has {count} decoder layers",
                fix=f"train at most {count} at a time",
            )
        model.requires_grad_(True)
        return model

    def before_step(self, model: Any, optimizer: Any, step: int) -> None:
        """Freeze all layers but the drawn ones; what the optimizer kept for them is the memory that LISA saves."""
        layers = decoder_layers(model)[1]
        drawn = random.Random(f"{self.seed} {step // self.interval}").sample(range(len(layers)), self.activated)
        for number, layer in enumerate(layers):
            layer.requires_grad_(number in drawn)
            for parameter in layer.parameters() if number not in drawn else ():
                optimizer.state.pop(parameter, None)

    def optimizer_values(self, model: Any) -> int:
        """Two moments for what is trained at a time, when the largest layers are drawn."""
        sizes = sorted(_values(layer) for layer in decoder_layers(model)[1])
        return 2 * (_values(model) - sum(sizes[: -self.activated]))


def _values(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
