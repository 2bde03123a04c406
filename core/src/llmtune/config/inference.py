"""Flags of `llmtune infer` itself."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class InferenceSection(Section):
    """Inference"""

    ckpt_dir: str | None = Field(None, description="Checkpoint of a training run; without it the base model answers.")
    load_args_from_ckpt_dir: bool = Field(
        True, description="Take model, template, system and quantization from the checkpoint."
    )
    load_dataset_config: bool = Field(False, description="Take the datasets from the checkpoint too.")
    sft_type: str = Field("lora", description="Tuner of the checkpoint; read from it by default.")
    infer_backend: str = Field(
        "AUTO", description="Engine. AUTO: transformers, which is also called pt (llmtune engines)."
    )
    eval_human: bool | None = Field(None, description="Chat in the terminal. None: unless a dataset is given.")
    stream: bool = Field(True, description="Show answers as they are generated.")
    show_dataset_sample: int = Field(10, ge=-1, description="Validation rows to answer; -1: all.")
    result_dir: str | None = Field(None, description="Where results are written. None: <ckpt_dir>/infer_result.")
    infer_batch_size: int = Field(8, ge=1, description="Dataset rows that are answered together.")
    seed: int = Field(42, description="Seed of sampling.")
