"""The model inside of its adapters."""

from __future__ import annotations

from typing import Any


def base_of(model: Any) -> Any:
    """Return the model of transformers inside of adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
