"""Hooks of the quantizer `bnb`."""

from __future__ import annotations

from typing import Any

from llmtune.api import LoadedModel, Quantizer, RunContext, UsageError, hookimpl


@hookimpl
def llmtune_create_quantizer(name: str, options: Any, run: RunContext) -> Quantizer:
    from llmtune_plugin_bnb._quantizer import BnbQuantizer
    from llmtune_plugin_bnb.options import BnbOptions

    return BnbQuantizer(options or BnbOptions(), bits=run.plan.quantization_bit)


@hookimpl
def llmtune_model_loaded(loaded: LoadedModel, run: RunContext) -> None:
    """Fail when nothing was quantized: some architectures keep their layers whole without a word."""
    from llmtune_plugin_bnb._quantizer import count_quantized

    quantized, linear = count_quantized(loaded.model)
    if not quantized:
        raise UsageError(
            f"bitsandbytes quantized none of the {linear} linear layers of this model",
            fix="leave out --quantization_bit, or choose another --quant_method",
        )
    run.say(f"bnb: {quantized} of {linear} linear layers in {run.plan.quantization_bit} bits")
