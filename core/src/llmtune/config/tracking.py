"""Flags about what is logged, and where to."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class TrackingSection(Section):
    """Logging"""

    logging_steps: int = Field(5, ge=1, description="Steps between log lines.")
    logging_dir: str | None = Field(None, description="Tensorboard files. None: <run folder>/runs.")
    report_to: list[str] = Field(["tensorboard"], description="Trackers: tensorboard, wandb, all, none ...")
    disable_tqdm: bool = Field(False, description="No progress bar, e.g. under nohup.")
    include_num_input_tokens_seen: bool = Field(False, description="Log how many tokens were seen so far.")
