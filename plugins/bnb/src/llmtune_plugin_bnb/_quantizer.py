"""bitsandbytes through transformers. References: arXiv:2208.07339 (int8), arXiv:2305.14314 (QLoRA)."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig

from llmtune.api import Quantizer
from llmtune_plugin_bnb.options import BnbOptions

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "uint8": torch.uint8}


class BnbQuantizer(Quantizer):
    """Quantizes linear layers while the model is loaded."""

    def __init__(self, options: BnbOptions, bits: int) -> None:
        self.options, self.bits = options, bits

    def load_kwargs(self, dtype: str) -> dict[str, Any]:
        if self.bits == 8:
            return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        options = self.options
        compute = dtype if options.bnb_4bit_comp_dtype == "AUTO" else options.bnb_4bit_comp_dtype
        return {
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_compute_dtype=_DTYPES[compute],
                bnb_4bit_quant_type=options.bnb_4bit_quant_type,
                bnb_4bit_use_double_quant=options.bnb_4bit_use_double_quant,
                bnb_4bit_quant_storage=_DTYPES[options.bnb_4bit_quant_storage or "uint8"],
            )
        }

    def dequantize(self, model: Any) -> Any:
        return model.dequantize()


def count_quantized(model: Any) -> tuple[int, int]:
    """Return (quantized linear layers, all linear layers)."""
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return sum(isinstance(module, Linear4bit | Linear8bitLt) for module in linear), len(linear)
