"""Flags about the run folder and its checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from llmtune.config.section import Section


class SavingSection(Section):
    """Checkpoints"""

    output_dir: str = Field("output", description="Where runs are written.")
    add_output_dir_suffix: bool = Field(True, description="Append <model_type>/v<n>-<time> to --output_dir.")
    save_strategy: Literal["steps", "epoch", "no"] = Field("steps", description="When checkpoints are written.")
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints. None: --eval_steps.")
    save_total_limit: int = Field(2, ge=-1, description="Checkpoints to keep, best and last first; -1: all.")
    save_only_model: bool | None = Field(
        None,
        description="Leave out what resuming needs. None: for tuners that save whole models, and with --deepspeed.",
    )
    save_on_each_node: bool = Field(False, description="Write checkpoints on every machine, not on the first only.")
    resume_from_checkpoint: str | None = Field(None, description="Checkpoint folder to go on from, exactly.")
    resume_only_model: bool = Field(False, description="Take only the weights from --resume_from_checkpoint.")
    push_hub_strategy: Literal["end", "push_best", "push_last", "checkpoint", "all_checkpoints"] = Field(
        "push_best",
        description="What --push_to_hub uploads: the best checkpoint at the end, each new best one, or each one; "
        "checkpoint and all_checkpoints add the last or every one with what resuming needs.",
    )

    @field_validator("save_total_limit")
    @classmethod
    def _keep_one(cls, value: int) -> int:
        if value == 0:
            raise ValueError("is 0, and the last checkpoint stays: 1 keeps it alone, -1 keeps all")
        return value
