"""Block expansion. Reference: Wu et al., LLaMA Pro (arXiv:2401.02415)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from llmtune.api import CheckpointError, RunContext, Tuner, decoder_layers, fill_tensors
from llmtune_plugin_llamapro._layers import check_identity, expand, new_layers, places, zero_outputs
from llmtune_plugin_llamapro.options import LlamaproOptions

_WEIGHTS, _CONFIG = "llamapro_model.safetensors", "llamapro_config.json"


class LlamaproTuner(Tuner):
    """Trains copies of decoder layers, inserted between the frozen ones, in the base model's dtype.

    A copy starts as the identity, because what its attention and its MLP write with is zero.
    """

    def __init__(self, options: LlamaproOptions, run: RunContext) -> None:
        self.options = options

    def prepare(self, model: Any) -> Any:
        blocks = self.options.llamapro_num_new_blocks
        groups = self.options.llamapro_num_groups or blocks
        expand(model, places(len(decoder_layers(model)[1]), blocks, groups))
        for layer in new_layers(model).values():
            zero_outputs(layer, model.config.get_text_config().hidden_size)
        check_identity(model)
        return _freeze_the_others(model)

    def save(self, model: Any, folder: Path) -> None:
        """Write the new layers alone, under their names in the expanded model."""
        layers, new = decoder_layers(model)[1], new_layers(model)
        config = {
            "num_base_layers": len(layers) - len(new),
            "new_layers": [{"index": index, "copied_from": layer.copied_from} for index, layer in new.items()],
        }
        (folder / _CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in _new_tensors(model).items()}, folder / _WEIGHTS)

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        count, new = _read_config(folder)
        found = len(decoder_layers(model)[1])
        if found != count:
            raise CheckpointError(
                f"{folder} expands a model of {count} layers, this one has {found}",
                fix="choose the base model that it was trained on",
            )
        expand(model, new)
        fill_tensors(_new_tensors(model), folder / _WEIGHTS)
        return _freeze_the_others(model) if trainable else model.requires_grad_(False)

    def merge(self, model: Any) -> Any:
        """Return the expanded model, which is a plain one with more layers."""
        for layer in new_layers(model).values():
            del layer.copied_from
        return model

    def add(self, model: Any, folder: Path, name: str) -> Any:
        raise NotImplementedError("new layers change the model itself: one base holds one set of them")


def _freeze_the_others(model: Any) -> Any:
    model.requires_grad_(False)
    for layer in new_layers(model).values():
        layer.requires_grad_(True)
    return model


def _new_tensors(model: Any) -> dict[str, Any]:
    """Return full name -> tensor of the new layers."""
    name = decoder_layers(model)[0]
    inside = tuple(f"{name}.{index}." for index in new_layers(model))
    return {full: tensor for full, tensor in model.state_dict().items() if full.startswith(inside)}


def _read_config(folder: Path) -> tuple[int, dict[int, int]]:
    """Return the number of layers of the base, and index -> copied layer of the new ones."""
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return config["num_base_layers"], {one["index"]: one["copied_from"] for one in config["new_layers"]}
    except OSError as error:
        raise CheckpointError(f"{folder} holds no new layers ({_CONFIG} is missing)", fix="check --sft_type") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}", fix="take another checkpoint") from error
