"""EETQ through transformers."""

from __future__ import annotations

from typing import Any

from transformers import EetqConfig

from llmtune.api import Quantizer, UsageError


class EetqQuantizer(Quantizer):
    """Quantizes all linear layers but the output head to 8 bits while the model is loaded."""

    def load_kwargs(self, dtype: str) -> dict[str, Any]:
        return {"quantization_config": EetqConfig("int8")}

    def dequantize(self, model: Any) -> Any:
        raise UsageError(
            "eetq's packed weights cannot take an adapter",
            fix="add --quantization_bit 0 to merge into the base model as it was published",
        )
