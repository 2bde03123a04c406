"""Full fine-tuning: the model itself is trained and stored."""

from __future__ import annotations

from typing import Any

from llmtune.api import UsageError, WholeModelTuner, parameter_size
from llmtune_plugin_full.options import FullOptions


class FullTuner(WholeModelTuner):
    """Trains all parameters, or those above a frozen bottom part."""

    def __init__(self, options: FullOptions) -> None:
        self.options = options

    def prepare(self, model: Any) -> Any:
        model.requires_grad_(True)
        self._freeze(model)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UsageError(
                "--freeze_parameters 1 leaves nothing to train",
                fix="name what to train with --additional_trainable_parameters",
            )
        return model

    def _freeze(self, model: Any) -> None:
        """Freeze parameters in model order until the share is reached."""
        budget = self.options.freeze_parameters * sum(map(parameter_size, model.parameters()))
        extra = tuple(self.options.additional_trainable_parameters)
        for name, parameter in model.named_parameters():
            budget -= parameter_size(parameter)
            if budget < 0:
                break
            parameter.requires_grad_(bool(extra) and name.startswith(extra))
