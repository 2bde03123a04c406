"""Quantizers: load or turn a model into fewer bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from llmtune.errors import UsageError


class Quantizer(ABC):
    """Quantizes on load (`load_kwargs`), after loading (`quantize`), or both."""

    @abstractmethod
    def load_kwargs(self, dtype: str) -> dict[str, Any]:
        """Return keywords for `from_pretrained`; `dtype` is bf16, fp16 or fp32."""

    def quantize(self, model: Any) -> Any:
        """Return the model quantized in place; the default leaves it as loaded."""
        return model

    def dequantize(self, model: Any) -> Any:
        """Return a plain model with the weights that the quantized ones stand for, to merge an adapter into."""
        raise UsageError(
            "an adapter cannot be merged into this base in few bits: its quantizer gives no plain weights",
            fix="--quantization_bit 0 merges into the base as it was published",
        )
