"""Flags about the training loop."""

from __future__ import annotations

from pydantic import Field, field_validator

from llmtune.config.section import Section, named


class TrainingSection(Section):
    """Training"""

    train_backend: str = named("trainer", "transformers", description="Training loop (the trainers of the plugins).")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of everything random.")
    batch_size: int = Field(
        1, ge=1, description="Rows of a step per process, times --gradient_accumulation_steps; rows of a padded batch."
    )
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="A step is so many times --batch_size rows. None: ceil(16 / batch_size / world_size)."
    )
    padding_free: bool = Field(
        True, description="Compute the rows of a step one after the other, as many at once as memory holds."
    )
    micro_batch_tokens: int | None = Field(
        None, ge=1, description="Tokens that are computed at once, without padding. None: what memory holds."
    )
    num_train_epochs: int = Field(1, ge=1, description="Passes over the data, when --max_steps is not set.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1: decided by --num_train_epochs.")
    gradient_checkpointing: bool = Field(
        True,
        description="Compute activations again in the backward pass where memory does not hold them; false: never.",
    )
    dataloader_num_workers: int | None = Field(
        None, ge=0, description="Processes that collate rows. None: 0 on Windows, else 1."
    )
    dataloader_pin_memory: bool = Field(True, description="Pin batches in memory for faster copies to a GPU.")
    dataloader_drop_last: bool = Field(False, description="Leave out a last batch that is not full.")
    ignore_data_skip: bool = Field(False, description="Start the data anew when a run is resumed.")
    auto_find_batch_size: bool = Field(
        False, description="Also with --padding_free false: compute fewer rows at once when memory does not hold them."
    )
    full_determinism: bool = Field(False, description="Use deterministic kernels only, even where they are slower.")
    test_oom_error: bool = Field(False, description="Train on the longest rows first, to see whether memory holds.")
    gpu_memory_fraction: float | None = Field(
        None, gt=0, le=1, description="Use at most this share of each GPU's memory."
    )
    early_stop_interval: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better result."
    )

    @field_validator("max_steps")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (decided by --num_train_epochs) or at least 1")
        return value
