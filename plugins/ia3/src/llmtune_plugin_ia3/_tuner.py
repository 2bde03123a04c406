"""(IA)3 through peft. Reference: Liu et al., T-Few (arXiv:2205.05638)."""

from __future__ import annotations

from typing import Any

import torch
from peft import IA3Config
from peft.tuners.ia3 import IA3Layer

from llmtune.api import PeftTuner, UsageError
from llmtune_plugin_ia3.options import Ia3Options


class Ia3Tuner(PeftTuner):
    """Scales what the target layers give by a learned vector (out), and what --ia3_feedforward_modules take by one
    (in); all start at one.
    """

    method = "IA3"
    options: Ia3Options

    def config(self, model: Any, **layers: Any) -> IA3Config:
        feedforward, targets = self.options.ia3_feedforward_modules, layers["target_modules"]
        outside = sorted(set(feedforward) - set(targets)) if isinstance(targets, list) else []
        if outside:
            raise UsageError(
                f"--ia3_feedforward_modules {' '.join(outside)} is not among --target_modules {' '.join(targets)}",
                fix=f"add it there: --target_modules {' '.join([*targets, *outside])}",
            )
        return IA3Config(task_type="CAUSAL_LM", feedforward_modules=feedforward, **layers)

    def with_precision(self, model: Any) -> Any:
        """peft's layers over bitsandbytes give fp32 whatever they are given, which the next layer cannot take."""
        for layer in model.modules():
            if isinstance(layer, IA3Layer) and not layer._forward_hooks:
                layer.register_forward_hook(_in_the_type_of_the_input)
        return super().with_precision(model)


def _in_the_type_of_the_input(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return output.to(inputs[0].dtype)
