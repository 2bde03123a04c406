"""`llmtune tuners --model_type NAME`: what each tuner trains of a model, and the memory it takes."""

from __future__ import annotations

import dataclasses
import json

from llmtune.config.model import ModelSection
from llmtune.model.memory import device_memory
from llmtune.pipelines.tuner_sizes import TunerSize, tuner_sizes
from llmtune.plugins.catalogue import Catalogue
from llmtune.table import text_table

_GB = 1e9


def show_tuners(model_type: str | None, model_id_or_path: str | None, catalogue: Catalogue, *, as_json: bool) -> int:
    """Print the installed tuners with their default flags over one model."""
    section = ModelSection(model_type=model_type, model_id_or_path=model_id_or_path)
    sizes = list(tuner_sizes(section, catalogue))
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in sizes], indent=1))
        return 0
    there, device = device_memory()
    print(text_table(["TUNER", "TRAINED", "SHARE", "MEMORY", "OVER 4 BITS"], [_cells(one) for one in sizes]))
    print(f"memory is for weights, gradients and optimizer; activations come on top; {device} has {there / _GB:.0f} GB")
    return 0


def _cells(size: TunerSize) -> list[str]:
    if size.problem:
        return [size.name, size.problem, "", "", ""]
    over_4_bits = "" if size.memory_4bit is None else f"{size.memory_4bit / _GB:.2f} GB"
    share = f"{size.trained / size.total:.3%}"
    return [size.name, f"{size.trained:,}", share, f"{size.memory / _GB:.2f} GB", over_4_bits]
