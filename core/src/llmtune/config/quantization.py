"""Flags about loading the base model in fewer bits."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class QuantizationSection(Section):
    """Quantization"""

    quant_method: str | None = Field(
        None, description="Quantizer of the base model, e.g. bnb. None: bnb when bits are set."
    )
    quantization_bit: int = Field(
        0, ge=0, description="Bits of the base model while training or answering; 0: not quantized."
    )
