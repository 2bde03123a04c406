"""Full fine-tuning: the model itself is trained and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from llmtune.api import CheckpointError, Tuner, UsageError
from llmtune_plugin_full.options import FullOptions


class FullTuner(Tuner):
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
        budget = self.options.freeze_parameters * sum(parameter.numel() for parameter in model.parameters())
        extra = tuple(self.options.additional_trainable_parameters)
        for name, parameter in model.named_parameters():
            budget -= parameter.numel()
            if budget < 0:
                break
            parameter.requires_grad_(bool(extra) and name.startswith(extra))

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        """Read `folder`, in one file or in shards, over the base's weights."""
        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} holds no whole model (no model*.safetensors)", fix="check --sft_type")
        weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = _not_tied(model, missing)
        if missing or unexpected:
            wrong = f"missing {', '.join(missing) or 'nothing'}, too many {', '.join(unexpected) or 'nothing'}"
            raise CheckpointError(f"{folder} holds another model: {wrong}", fix="check --model_type")
        return self.prepare(model) if trainable else model


def _not_tied(model: Any, names: list[str]) -> list[str]:
    """Leave out names of parameters that are stored once under another name (a tied output head)."""
    named = dict(model.named_parameters(remove_duplicate=False))
    others = {id(tensor) for name, tensor in named.items() if name not in names}
    return [name for name in names if id(named.get(name)) not in others]
