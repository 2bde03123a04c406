"""Bottleneck adapters. Reference: Houlsby et al., Parameter-Efficient Transfer Learning for NLP (arXiv:1902.00751)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from llmtune.api import CheckpointError, RunContext, Tuner, UsageError, fill_tensors
from llmtune_plugin_adapter._bottleneck import activate, bottlenecks, check_activation, insert
from llmtune_plugin_adapter.options import AdapterOptions

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_TYPE = "bottleneck"
_DEFAULT = "default"

CANNOT_BE_MERGED = UsageError(
    "an adapter of --sft_type adapter cannot be merged: the activation in its bottleneck is not linear, so no weights "
    "of the base model compute the same",
    fix="keep base model and checkpoint apart (llmtune infer --ckpt_dir CHECKPOINT), or train with --sft_type lora to "
    "be able to merge",
)


class AdapterTuner(Tuner):
    """Trains a `Bottleneck` behind each decoder layer's MLP and nothing else."""

    def __init__(self, options: AdapterOptions, run: RunContext) -> None:
        check_activation(options.adapter_act)
        self.options = options

    def prepare(self, model: Any) -> Any:
        model.requires_grad_(False)
        insert(model, _DEFAULT, self.options.adapter_length, self.options.adapter_act)
        return model

    def save(self, model: Any, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _, one = next(bottlenecks(model, _DEFAULT))
        config = {
            "adapter_type": _TYPE,
            "adapter_length": one.down.out_features,
            "adapter_act": one.activation_name,
        }
        (folder / _CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in _tensors(model, _DEFAULT).items()}, folder / _WEIGHTS)

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        model.requires_grad_(False)
        model = self.add(model, folder, _DEFAULT)
        for _, one in bottlenecks(model, _DEFAULT):
            one.requires_grad_(trainable)
        return model

    def merge(self, model: Any) -> Any:
        raise CANNOT_BE_MERGED

    def add(self, model: Any, folder: Path, name: str) -> Any:
        length, act = _read_config(folder)
        insert(model, name, length, act)
        fill_tensors(_tensors(model, name), folder / _WEIGHTS)
        for _, one in bottlenecks(model, name):
            one.requires_grad_(False)
        return model

    def choose(self, model: Any, name: str | None) -> None:
        activate(model, name or _DEFAULT)


def _tensors(model: Any, name: str) -> dict[str, Any]:
    """Return stored name -> tensor of the adapter `name`, such as model.layers.0.mlp.adapter.up.weight."""
    return {
        f"{mlp}.adapter.{part}": tensor
        for mlp, one in bottlenecks(model, name)
        for part, tensor in one.state_dict().items()
    }


def _read_config(folder: Path) -> tuple[int, str]:
    """Return the length and the activation of a stored adapter."""
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("adapter_type") != _TYPE:
            found = f"one of type {config['peft_type']}" if "peft_type" in config else "another"
            raise CheckpointError(f"{folder} holds no bottleneck adapter but {found}", fix="check --sft_type")
        check_activation(config["adapter_act"])
        return config["adapter_length"], config["adapter_act"]
    except OSError as error:
        raise CheckpointError(f"{folder} holds no adapter ({_CONFIG} is missing)", fix="check --sft_type") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}", fix="take another checkpoint") from error
