"""Flags about answering: the checkpoint, the engine, what is shown."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from llmtune.config.section import Section, named


class InferenceSection(Section):
    """Inference"""

    ckpt_dir: str | None = Field(None, description="Checkpoint of a training run; without it the base model answers.")
    load_args_from_ckpt_dir: bool = Field(
        True, description="Take model, template, system and quantization from the checkpoint."
    )
    load_dataset_config: bool = Field(False, description="Take the datasets from the checkpoint too.")
    sft_type: str = named(
        "tuner",
        "lora",
        description="Tuner of the checkpoint; read from it by default.",
    )
    infer_backend: str = named(
        "engine",
        "AUTO",
        pending=["vllm", "lmdeploy"],
        description="Engine (llmtune engines). AUTO: vllm for whole models where it is installed, else pt.",
    )
    eval_human: bool | None = Field(None, description="Chat in the terminal. None: unless a dataset is given.")
    stream: bool = Field(
        True, description="Show answers as they are generated, in a chat; rows of a dataset come in batches."
    )
    verbose: bool | None = Field(
        None, description="Show each question and answer instead of a progress bar. None: below 100 rows."
    )
    show_dataset_sample: int = Field(10, ge=-1, description="Validation rows to answer; -1: all.")
    save_result: bool = Field(True, description="Write the answers to a file.")
    result_dir: str | None = Field(None, description="Where results are written. None: <ckpt_dir>/infer_result.")
    infer_batch_size: int = Field(8, ge=1, description="Dataset rows that are answered together.")
    overwrite_generation_config: bool | None = Field(
        None, description="Write the generation flags into the checkpoint's generation_config.json. None: true."
    )
    lora_modules: list[str] = Field(
        [], description="More adapters over the same base, as name=folder; each answers by its name."
    )
    stop_words: list[str] = Field([], description="Texts that end an answer, besides the template's.")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of sampling.")

    @field_validator("lora_modules")
    @classmethod
    def _names_and_folders(cls, value: list[str]) -> list[str]:
        names = [word.partition("=")[0] for word in value]
        if not all(re.fullmatch(r"[\w.-]+=.+", word) for word in value):
            raise ValueError("takes words such as poet=output/checkpoint-100")
        if len(set(names)) < len(names) or "default-lora" in names:
            raise ValueError("takes each name once, and default-lora is the adapter of --ckpt_dir")
        return value
