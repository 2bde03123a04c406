"""A model's layers without their weights: to check a tuner's flags, and to count, before anything large is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.interfaces.layout import Layout
from llmtune.model.layout import layout_of, native_config, read_config

if TYPE_CHECKING:
    import torch


def skeleton(folder: Path, layouts: Sequence[Layout], dtype: torch.dtype) -> Any:
    """Return the model of a folder with all tensors on the device "meta".

    None where only the model's own Python code knows its layers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    layout = layout_of(folder, layouts)
    if layout is None and "auto_map" in read_config(folder):
        return None
    config = native_config(layout, folder) if layout else AutoConfig.from_pretrained(folder)
    if type(config) not in AutoModelForCausalLM._model_mapping and layout is None:
        return None
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # its layers are named as those that were quantized
    with torch.device("meta"):
        if layout is None:
            return AutoModelForCausalLM.from_config(config, dtype=dtype)
        return layout.model_class(config)._from_config(config, dtype=dtype)
