"""From `--target_modules` and `--modules_to_save` to names of layers, as peft takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import parameter_size

if TYPE_CHECKING:
    from torch import nn


def target_modules(wanted: Sequence[str], family_default: Sequence[str] | None, model: nn.Module) -> list[str]:
    """Return the last parts of the layer names to adapt, sorted.

    DEFAULT and AUTO mean the family's list (all linear layers when it states none), ALL every linear
    layer but the output head, EMBEDDING the input embedding.
    """
    _check_experts(wanted, model)
    names: set[str] = set()
    for word in wanted:
        if word in ("DEFAULT", "AUTO"):
            names |= set(family_default or linear_layers(model))
        elif word == "ALL":
            names |= set(linear_layers(model))
        elif word == "EMBEDDING":
            names |= set(_embedding_names(model))
        else:
            names.add(word)
    _check_present(names, model, "--target_modules")
    return sorted(names)


def modules_to_save(wanted: Sequence[str], model: nn.Module) -> list[str]:
    """Return the last parts of the names of layers to train whole."""
    names: set[str] = set()
    for word in wanted:
        if word == "EMBEDDING":
            names |= set(_embedding_names(model))
        elif word == "LN":
            names |= {name for name, module in _modules(model) if "norm" in type(module).__name__.lower()}
        else:
            names.add(word)
    _check_present(names, model, "--modules_to_save")
    return sorted(names)


def expert_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return name -> parameter that holds a matrix of every expert at once, (experts, rows, columns).

    transformers 5 keeps experts so: they are no layers, and adapters of layers pass them over.
    """
    config = model.config.get_text_config()
    said = {name: value for name, value in vars(config).items() if "expert" in name and type(value) is int}
    counts = set(said.values()) - {0, 1}
    found = {name: one for name, one in model.named_parameters() if one.ndim == 3 and one.shape[0] in counts}
    convolutions = {name for name, module in model.named_modules() if type(module).__name__.startswith("Conv")}
    return {name: one for name, one in found.items() if name.rpartition(".")[0] not in convolutions}


def frozen_experts(model: Any) -> str:
    """Return a line about experts that stay as they are although the model is trained; empty where none do."""
    experts = expert_parameters(model)
    if not experts or any(parameter.requires_grad for parameter in experts.values()):
        return ""
    share = sum(map(parameter_size, experts.values())) / sum(map(parameter_size, model.parameters()))
    return f"the experts ({share:.0%} of the parameters) stay as they are: no adapter reaches them"


def _check_experts(wanted: Sequence[str], model: Any) -> None:
    """Raise `UsageError` for words that mean experts as well, which no adapter reaches."""
    experts = {name.rpartition(".")[2] for name in expert_parameters(model)}
    if not experts:
        return
    if "gate_up_proj" in experts:
        experts |= {"gate_proj", "up_proj"}
    meant = [word for word in wanted if word == "ALL" or word in experts]
    if meant:
        others = [name for name in linear_layers(model) if name not in experts]
        raise UsageError(
            f"--target_modules {' '.join(meant)}: the experts of this model are no layers, and no adapter reaches them",
            fix=f"--target_modules {' '.join(others)} trains the other layers alone; --sft_type full trains experts",
        )


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return name and list of the decoder layers: the outermost list of as many modules as the config says."""
    from torch import nn

    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise UsageError(
        f"{type(model).__name__} has no list of {count} decoder layers", fix="choose another --sft_type for this model"
    )


def layers_named(targets: Sequence[str] | str, model: nn.Module) -> dict[str, nn.Module]:
    """Return full name -> layer for names as `target_modules` gives them, or a regular expression over full names."""
    if isinstance(targets, str):
        return {full: module for full, module in model.named_modules() if re.fullmatch(targets, full)}
    return {full: module for full, module in model.named_modules() if not set(targets).isdisjoint(_endings(full))}


def cannot_adapt(
    method: str, regex: str | None, wanted: Sequence[str], model: nn.Module, error: ValueError
) -> UsageError:
    """Return what to say where peft refused the layers that `--target_regex` or `--target_modules` asks for."""
    asked = f"--target_regex {regex!r}" if regex else f"--target_modules {' '.join(wanted)}".strip()
    unsupported = re.match(r"Target module (\w+)", str(error))  # what follows prints the layer itself
    names = _nearest(regex or " ".join(wanted), model)
    if not (regex or wanted):
        problem = "it names no layer"
    elif regex and not any(re.fullmatch(regex, full) for full, _ in model.named_modules()):
        problem = f"no layer has a name that matches as a whole, as .*{names[0]} does"
    elif unsupported:
        problem = f"{method} cannot adapt layers of type {unsupported[1]}"
    else:
        problem = str(error).partition("\n")[0]
    return UsageError(f"{asked}: {problem}", fix=f"the nearest linear layers are {', '.join(names)}")


def _nearest(text: str, model: nn.Module) -> list[str]:
    """Return the names of the linear layers that the words of `text` are close to; all where there are none."""
    names = linear_layers(model)
    # Single letters are what remains of escapes such as \d.
    close = {name for word in re.findall(r"\w\w+", text) for name in get_close_matches(word, names)}
    return [name for name in names if name in close] or names


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name.rpartition(".")[2], module) for name, module in model.named_modules()]


_FUSED_KERNEL = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}
"""Models whose kernel takes the weight of `out_proj` itself, so an adapter would be passed over; peft refuses it."""


def linear_layers(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    fused = {"out_proj"} if model.config.model_type in _FUSED_KERNEL else set()
    layers = (full for full, module in model.named_modules() if _is_linear(module) and module is not head)
    return sorted({_last_part(full) for full in layers} - fused)


_PACKED = {"gptqmodel.nn_modules.qlinear.BaseQuantLinear", "hqq.core.quantize.HQQLinear"}
"""Linear layers that are no subclass of torch's. Named, because importing these packages changes what peft imports."""


def _is_linear(module: nn.Module) -> bool:
    """Whether a module computes what a linear layer does: plain ones, quantized ones, GPT-2's Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if type(module) in (nn.Linear, Conv1D) or not _PACKED.isdisjoint(_class_names(module)):
        return True
    own = type(module).__module__.startswith("transformers.")
    return isinstance(module, nn.Linear) and (not own or _gives_outputs(module))


def _class_names(module: nn.Module) -> set[str]:
    return {f"{one.__module__}.{one.__qualname__}" for one in type(module).__mro__}


def _gives_outputs(module: nn.Linear) -> bool:
    """Some of transformers' subclasses are routers, which give several tensors, or grouped projections."""
    import torch

    weights = {name: parameter.to("meta") for name, parameter in module.named_parameters()}
    inputs = torch.empty(1, 1, module.in_features, device="meta", dtype=module.weight.dtype)
    try:
        outputs = torch.func.functional_call(module, weights, (inputs,))
    except (RuntimeError, TypeError, AttributeError):
        return False
    return isinstance(outputs, torch.Tensor) and outputs.shape == (1, 1, module.out_features)


def _last_part(full: str) -> str:
    """Return the last part of a layer's name, with the one before where it is a number: decoder layers have those."""
    *_, before, last = ["", *full.split(".")]
    return f"{before}.{last}" if last.isdigit() else last


def _embedding_names(model: nn.Module) -> list[str]:
    from torch import nn

    return sorted({name for name, module in _modules(model) if isinstance(module, nn.Embedding)})


def _check_present(names: set[str], model: nn.Module, flag: str) -> None:
    present = {name for full, _ in model.named_modules() for name in _endings(full)}
    missing = sorted(names - present)
    if missing:
        raise UsageError(
            f"{flag} {' '.join(missing)}: the model has no such layer",
            fix=f"its linear layers are {', '.join(linear_layers(model))}",
        )


def _endings(full: str) -> list[str]:
    parts = full.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
