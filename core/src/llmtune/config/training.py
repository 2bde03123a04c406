"""Flags about the training loop."""

from __future__ import annotations

from pydantic import Field, field_validator

from llmtune.config.section import Section, named, pending


class TrainingSection(Section):
    """Training"""

    train_backend: str = named("trainer", "transformers", description="Training loop (the trainers of the plugins).")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of everything random.")
    batch_size: int = Field(1, ge=1, description="Rows per device and forward pass.")
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="Forward passes per step. None: ceil(16 / batch_size / world_size)."
    )
    num_train_epochs: int = Field(1, ge=1, description="Passes over the data, when --max_steps is not set.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1: decided by --num_train_epochs.")
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass to save memory.")
    dataloader_num_workers: int | None = Field(
        None, ge=0, description="Processes that collate rows. None: 0 on Windows, else 1."
    )
    dataloader_pin_memory: bool = Field(True, description="Pin batches in memory for faster copies to a GPU.")
    dataloader_drop_last: bool = Field(False, description="Leave out a last batch that is not full.")
    ignore_data_skip: bool = pending(False, description="Start the data anew when a run is resumed.")
    auto_find_batch_size: bool = pending(False, description="Halve the batch size until it fits into memory.")
    full_determinism: bool = pending(False, description="Use deterministic kernels only, even where they are slower.")
    test_oom_error: bool = pending(False, description="Train on the longest rows first, to see whether memory holds.")
    gpu_memory_fraction: float | None = pending(
        None, gt=0, le=1, description="Pretend that GPUs have this share of their memory."
    )

    @field_validator("max_steps")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (decided by --num_train_epochs) or at least 1")
        return value
