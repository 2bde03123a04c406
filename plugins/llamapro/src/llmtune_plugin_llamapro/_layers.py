"""Decoder layers that are inserted between others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llmtune.api import UsageError, decoder_layers

_ANOTHER = "choose another --sft_type for this model"


def new_layers(model: Any) -> dict[int, Any]:
    """Return index -> layer for those that `expand` has inserted."""
    return {index: layer for index, layer in enumerate(decoder_layers(model)[1]) if hasattr(layer, "copied_from")}


def places(layers: int, blocks: int, groups: int) -> dict[int, int]:
    """Return index of each new layer -> index of the layer that it is a copy of, which counts old layers only.

    The layers are cut into `groups` of equal size; copies of the last blocks / groups of each follow it (section 3.2).
    """
    size, copies = layers // groups, blocks // groups
    if layers % groups:
        raise UsageError(
            f"--llamapro_num_groups {groups} does not divide the {layers} layers of the model "
            "(None: one group for each new block)",
            fix="choose one of " + ", ".join(str(number) for number in range(1, layers + 1) if layers % number == 0),
        )
    if copies > size:
        raise UsageError(
            f"--llamapro_num_new_blocks {blocks} in {groups} groups asks for {copies} copies after each {size} layers",
            fix=f"give at most {layers}",
        )
    return {
        (group + 1) * size + group * copies + copied: (group + 1) * size - copies + copied
        for group in range(groups)
        for copied in range(copies)
    }


def expand(model: Any, new: Mapping[int, int]) -> None:
    """Insert copies of layers at the places `new`; config and indices then say where each layer is."""
    name, old = decoder_layers(model)
    count, rest = len(old) + len(new), iter(range(len(old)))
    sources = [new[index] if index in new else next(rest) for index in range(count)]
    layers: Any = nn.ModuleList(
        _copy(old[source]) if index in new else old[source] for index, source in enumerate(sources)
    )
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layers)
    _update(model.config.get_text_config(), sources, len(old))
    _check_that_the_config_describes(model)
    for index, source in new.items():
        layers[index].copied_from = source


def _copy(layer: nn.Module) -> nn.Module:
    """Copy a layer, but not the config that it shares with the others."""
    configs = [module.config for module in layer.modules() if hasattr(module, "config")]
    return copy.deepcopy(layer, {id(config): config for config in configs})


def _update(config: Any, sources: list[int], old: int) -> None:
    """Let the config's number of layers, and its lists with an item for each layer, follow."""
    for name, value in config.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == old:
            setattr(config, name, [value[source] for source in sources])
    config.num_hidden_layers = len(sources)


def _check_that_the_config_describes(model: Any) -> None:
    """Raise `UsageError` where a model built from the new config would differ, as a merged one is when it loads.

    Some families make a layer by its place: dense below an index, experts above.
    """
    try:
        with torch.device("meta"):
            built = type(model)(type(model.config).from_dict(model.config.to_dict()))
        described = [_facts(module) for module in decoder_layers(built)[1].modules()]
    except ValueError as error:
        raise UsageError(f"llamapro: {type(model.config).__name__} cannot say more layers", fix=_ANOTHER) from error
    found = [_facts(module) for module in decoder_layers(model)[1].modules()]
    same = len(found) == len(described) and all(
        has.get(name) == value for has, wanted in zip(found, described, strict=True) for name, value in wanted.items()
    )
    if not same:
        raise UsageError(f"llamapro: layers of {type(model).__name__} depend on their place", fix=_ANOTHER)


def _facts(module: nn.Module) -> dict[str, Any]:
    """Return what a module computes with besides its weights: numbers, words and the shapes of its parameters."""
    plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    shapes = {name: parameter.shape for name, parameter in module.named_parameters(recurse=False)}
    return {name: value for name, value in plain.items() if name[0] != "_" and name != "training"} | shapes


def zero_outputs(layer: nn.Module, hidden_size: int) -> None:
    """Let a layer add nothing to its input: zero what attention, MLP and experts write with, biases too.

    That is the last linear layer of each block that gives `hidden_size` values, and the `down_proj` of stacked experts.
    """
    for module in layer.modules():
        writing = [child for child in module.children() if _width(child) == hidden_size]
        written = list(writing[-1].parameters()) if writing else []
        written += [value for name, value in module.named_parameters(recurse=False) if name.startswith("down_proj")]
        for parameter in written:
            parameter.data.zero_()


def _width(module: nn.Module) -> int | None:
    """Return how many values a linear layer gives."""
    if isinstance(module, Conv1D):
        return int(module.nf)
    return module.out_features if isinstance(module, nn.Linear) else None


@torch.no_grad()
def check_identity(model: Any) -> None:
    """Raise `UsageError` unless the new layers hand on their input as it is; nothing is known on the device "meta"."""
    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return
    changed = []

    def compare(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        given = output[0] if isinstance(output, tuple) else output
        changed.append(not torch.equal(inputs[0], given))

    hooks = [layer.register_forward_hook(compare) for layer in new_layers(model).values()]
    try:
        model.eval()(input_ids=torch.arange(1, 5, device=device)[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if any(changed):
        raise UsageError(
            f"llamapro: a layer of {type(model).__name__} changes its input even if it writes nothing", fix=_ANOTHER
        )
