"""Flags about datasets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmtune.config.section import Section, named
from llmtune.paths import split_names


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return [part for item in value for part in (split_names(item) if isinstance(item, str) else [item])]
    return value


Selectors = Annotated[list[str], BeforeValidator(_split_commas)]


class DataSection(Section):
    """Data"""

    dataset: Selectors = named(
        "dataset", [], description="Training data: registered names, hub ids or files; name#500 draws 500 rows."
    )
    val_dataset: Selectors = named(
        "dataset", [], description="Validation data; without it a part of the training data is split off."
    )
    dataset_test_ratio: float = Field(
        0.01, ge=0, lt=1, description="Share of each dataset that is split off for validation."
    )
    dataset_seed: int | None = Field(None, ge=0, lt=2**32, description="Seed of sampling and splitting. None: --seed.")
    train_dataset_sample: int = Field(
        -1, ge=-1, description="Rows to draw from all training data together; -1: all. Better: --dataset NAME#500."
    )
    val_dataset_sample: int | None = Field(
        None, ge=-1, description="Rows to draw from all validation data together; None and -1: all."
    )
    columns: dict[str, str] | None = Field(
        None, description='What columns mean, as JSON: {"question": "query", "notes": "-"}; "-" leaves one out.'
    )
    check_dataset_strategy: Literal["none", "discard", "error", "warning"] = Field(
        "none",
        description="Strict check for copies and odd rows. discard leaves them out, warning names each and keeps it, "
        "error stops at the first row that is odd or cannot be used.",
    )
    max_dropped_ratio: float = Field(
        0.05, ge=0, le=1, description="Fail when more than this share of the rows cannot be used for training."
    )
    custom_dataset_info: str | dict[str, Any] | list[Any] | None = Field(
        None, description="More datasets: a dataset_info.json, or its content as JSON."
    )
    interleave_prob: list[float] | None = Field(
        None, description="Probability of each dataset to bring the next row. None: one dataset after the other."
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = Field(
        "first_exhausted", description="Interleaving ends with the first or with the last dataset that is used up."
    )
