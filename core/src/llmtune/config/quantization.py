"""Flags about loading the base model in fewer bits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section, named


class QuantizationSection(Section):
    """Quantization"""

    quant_method: str | None = named(
        "quantizer",
        None,
        pending=["awq", "gptq", "aqlm"],
        description="Quantizer of the base model, e.g. bnb. None: bnb when bits are set.",
    )
    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = Field(
        0, description="Bits of the base model while training or answering; 0: not quantized."
    )
