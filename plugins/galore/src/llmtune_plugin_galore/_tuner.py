"""GaLore: all weights are trained, and the optimizer sees their gradients at a low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from llmtune.api import RunContext, UsageError, WholeModelTuner
from llmtune_plugin_galore._moments import EightBitMoments, Moments
from llmtune_plugin_galore._optimizer import GaloreAdamW
from llmtune_plugin_galore._projection import Projection, basis_shapes
from llmtune_plugin_galore.options import GaloreOptions

if TYPE_CHECKING:
    from torch.nn import Parameter


class GaloreTuner(WholeModelTuner):
    """Trains everything with `GaloreAdamW`."""

    def __init__(self, options: GaloreOptions, run: RunContext) -> None:
        self.options = options
        self.whole_steps = options.galore_optim_per_parameter
        self.targets = options.galore_target_modules and run.plan.native_modules(options.galore_target_modules)

    def prepare(self, model: Any) -> Any:
        self.projected(model)
        model.requires_grad_(True)
        return model

    def optimizer(self, model: Any, settings: Any) -> GaloreAdamW:
        projected = {id(parameter) for parameter in self.projected(model)}
        made = GaloreAdamW(
            _groups(model, projected, settings.weight_decay, self.options.galore_scale),
            Projection(self.options),
            EightBitMoments() if settings.optim.endswith("8bit") else Moments(),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
        )
        if self.options.galore_optim_per_parameter:
            made.update_in_backward()
        return made

    def optimizer_values(self, model: Any) -> int:
        """Two moments, for projected matrices at the low rank, and the bases; fewer bits each count as whole values."""
        projected = {id(parameter) for parameter in self.projected(model)}
        return sum(self._kept(one) if id(one) in projected else 2 * one.numel() for one in model.parameters())

    def _kept(self, parameter: Parameter) -> int:
        bases = basis_shapes(parameter.shape, self.options)
        rows = bases["left"][1] if "left" in bases else parameter.shape[0]
        columns = bases["right"][1] if "right" in bases else parameter.shape[1]
        return 2 * rows * columns + sum(shape.numel() for shape in bases.values())

    def projected(self, model: Any) -> list[Parameter]:
        """Return the matrices whose gradients are projected, each once."""
        layers = self._target_layers(model)
        if self.options.galore_with_embedding:
            layers = [*layers, model.get_input_embeddings()]
        return list({id(layer.weight): layer.weight for layer in layers}.values())

    def _target_layers(self, model: Any) -> list[Any]:
        """Return the linear layers that are named by any part of their name; by default all but the output head."""
        layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)}
        if self.targets is None:
            return [layer for layer in layers.values() if layer is not model.get_output_embeddings()]
        for part in self.targets:
            if not any(part in name for name in layers):
                known = sorted({name.rpartition(".")[2] for name in layers})
                raise UsageError(
                    f"--galore_target_modules {part}: no linear layer has that in its name",
                    fix=f"the model's linear layers are called {', '.join(known)}",
                )
        return [layer for name, layer in layers.items() if any(part in name for part in self.targets)]


def _groups(model: Any, projected: set[int], weight_decay: float, scale: float) -> list[dict[str, Any]]:
    """Return groups of parameters: weights decay, biases and norms do not; projected weights are scaled."""
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and "bias" not in name
        groups.setdefault((weight_decay if decays else 0.0, id(parameter) in projected), []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "projected": low_rank, "scale": scale if low_rank else 1.0}
        for (decay, low_rank), params in groups.items()
    ]
