"""Flags about the training loop and what it writes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section


class TrainingSection(Section):
    """Training"""

    train_backend: str = Field("hf", description="Training loop; hf is transformers' Trainer.")
    output_dir: str = Field("output", description="Where runs are written.")
    add_output_dir_suffix: bool = Field(True, description="Append <model_type>/v<n>-<time> to --output_dir.")
    seed: int = Field(42, description="Seed of everything random.")
    batch_size: int = Field(1, ge=1, description="Rows per device and forward pass.")
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, description="Forward passes per step. None: ceil(16 / batch_size / world_size)."
    )
    num_train_epochs: int = Field(1, ge=1, description="Passes over the data, when --max_steps is not set.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1: decided by --num_train_epochs.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate. None: the tuner's (lora 1e-4, full 1e-5)."
    )
    lr_scheduler_type: str = Field("cosine", description="Schedule: cosine, linear, constant ...")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Steps with a rising learning rate; overrides --warmup_ratio.")
    optim: str = Field("adamw_torch", description="Optimizer, by its transformers name.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="First moment decay of Adam.")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="Second moment decay of Adam.")
    adam_epsilon: float = Field(1e-8, gt=0, description="Term added to Adam's denominator.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0: never.")
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass to save memory.")
    dataloader_num_workers: int | None = Field(
        None, ge=0, description="Processes that collate rows. None: 0 (rows are in memory)."
    )
    logging_steps: int = Field(5, ge=1, description="Steps between log lines.")
    logging_dir: str | None = Field(None, description="Tensorboard files. None: <run folder>/runs.")
    report_to: list[str] = Field(["tensorboard"], description="Trackers: tensorboard, wandb, all, none ...")
    disable_tqdm: bool = Field(False, description="No progress bar, e.g. under nohup.")
    save_strategy: Literal["steps", "epoch", "no"] = Field("steps", description="When checkpoints are written.")
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints. None: --eval_steps.")
    save_total_limit: int = Field(2, ge=-1, description="Checkpoints to keep, best and last first; -1: all.")
    save_only_model: bool | None = Field(
        None, description="Leave out what resuming needs. None: only for tuners that save whole models."
    )
    resume_from_checkpoint: str | None = Field(None, description="Checkpoint folder to go on from, exactly.")
