"""hqq on a loaded model. Reference: Badri and Shaji, Half-Quadratic Quantization (2023), mobiusml.github.io."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from torch import nn

from llmtune.api import Quantizer, RunContext, UsageError
from llmtune_plugin_hqq._layers import LayerSettings, read_layers
from llmtune_plugin_hqq.options import HqqOptions

GROUP = 64
"""Weights that share a scale and a zero point, where no file says otherwise."""
_ROWS_IN_A_BYTE = {1: 8, 2: 4, 3: 1, 4: 2, 8: 1}  # in 3 bits hqq fills up


class HqqQuantizer(Quantizer):
    """Replaces the linear layers of a loaded model, all but the output head, by hqq's own.

    hqq groups the weights of a layer as one long row (axis 1) or column (axis 0), so that `group_size` has to
    divide their number and not the layer's width. They stay on the device that they lie on, and compute in the
    type that they were loaded in.
    """

    def __init__(self, options: HqqOptions, run: RunContext) -> None:
        self.run = run
        self.default = {"nbits": run.plan.quantization_bit, "group_size": GROUP, "axis": options.hqq_axis}
        path = options.hqq_dynamic_config_path
        self.layers = read_layers(path) if path else {}

    def load_kwargs(self, dtype: str) -> dict[str, Any]:
        return {}

    def quantize(self, model: Any) -> Any:
        linear = dict(_linear_layers(model))
        self._check_names(linear)
        for name, layer in linear.items():
            model.set_submodule(name, _quantized(name, layer, self._settings(name)))
        self.run.say(f"hqq: {len(linear)} linear layers in {self._bits_in_words(linear)} bits")
        return model

    def dequantize(self, model: Any) -> Any:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, HQQLinear):
                model.set_submodule(name, _plain(layer))
        return model

    def _settings(self, name: str) -> dict[str, Any]:
        """The longest name of the file that the layer's own ends with wins."""
        own = max((end for end in self.layers if _ends_with(name, end)), key=len, default=None)
        return self.layers.get(own or "", LayerSettings()).over(self.default)

    def _bits_in_words(self, linear: dict[str, nn.Linear]) -> str:
        return " and ".join(map(str, sorted({self._settings(name)["nbits"] for name in linear})))

    def _check_names(self, linear: dict[str, nn.Linear]) -> None:
        if not linear:
            raise UsageError(
                "hqq quantized nothing: this model has no plain linear layer",
                fix="leave out --quantization_bit, or choose another --quant_method",
            )
        unknown = [end for end in self.layers if not any(_ends_with(name, end) for name in linear)]
        if unknown:
            raise UsageError(
                f"--hqq_dynamic_config_path names {', '.join(unknown)}: no linear layer's name ends so",
                fix=f"the names are such as {', '.join(list(linear)[:7])}",
            )


def _linear_layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head:
            yield name, module


def _ends_with(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def _quantized(name: str, layer: nn.Linear, settings: dict[str, Any]) -> HQQLinear:
    _check_groups(name, layer, settings)
    if layer.weight.device.type == "meta":
        raise UsageError(f"hqq cannot quantize {name}, which was offloaded", fix="give every layer a device of its own")
    return HQQLinear(
        layer, BaseQuantizeConfig(**settings), compute_dtype=layer.weight.dtype, device=str(layer.weight.device)
    )


def _plain(layer: HQQLinear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(layer.dequantize(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias, requires_grad=False)
    return plain


def _check_groups(name: str, layer: nn.Linear, settings: dict[str, Any]) -> None:
    """hqq packs rows of the grouped weights together, and leaves out those that do not fill a byte."""
    bits, group, axis = settings["nbits"], settings["group_size"], settings["axis"]
    count = layer.weight.numel()
    rows = group if axis == 0 else count // group
    if count % group or rows % _ROWS_IN_A_BYTE[bits]:
        raise UsageError(
            f"hqq cannot quantize {name}, {layer.out_features} x {layer.in_features} weights, to {bits} bits in groups "
            f"of {group} along axis {axis}",
            fix="choose another --hqq_axis, or give the layer a group_size with --hqq_dynamic_config_path",
        )
