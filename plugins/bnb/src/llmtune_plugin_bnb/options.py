"""Flags of the quantizer `bnb`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.api import Section


class BnbOptions(Section):
    """bitsandbytes"""

    bnb_4bit_comp_dtype: Literal["AUTO", "fp16", "bf16", "fp32"] = Field(
        "AUTO", description="Type that 4-bit weights are computed in. AUTO: --dtype."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit code.")
    bnb_4bit_use_double_quant: bool = Field(True, description="Quantize the scales of 4-bit blocks too.")
    bnb_4bit_quant_storage: Literal["bf16", "fp16", "fp32", "uint8"] | None = Field(
        None, description="Type in which packed 4-bit weights are kept. None: uint8."
    )
