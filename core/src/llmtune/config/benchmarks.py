"""Flags about evaluating a model on benchmarks."""

from __future__ import annotations

import re

from pydantic import field_validator

from llmtune.config.section import Section, pending


class BenchmarksSection(Section):
    """Benchmarks"""

    eval_dataset: list[str] = pending([], description="Benchmarks to run; none: all.")
    eval_few_shot: int | None = pending(None, ge=0, description="Examples in the prompt. None: the benchmark's own.")
    eval_limit: str | None = pending(None, description="Rows of each benchmark: a number or a slice such as [10:20].")
    name: str = pending("", description="Tells apart results of the same settings.")
    eval_url: str | None = pending(None, description="Evaluate a served model, e.g. http://127.0.0.1:8000/v1.")
    eval_token: str = pending("EMPTY", secret=True, description="Key of the served model.")
    eval_is_chat_model: bool | None = pending(None, description="Whether the served model takes chats or plain text.")
    custom_eval_config: str | None = pending(None, description="JSON file that describes benchmarks of your own.")
    eval_use_cache: bool = pending(False, description="Use answers of an earlier run.")
    eval_output_dir: str = pending("eval_outputs", description="Where results are written.")
    eval_backend: str = pending("OpenCompass", description="Harness that runs the benchmarks.")
    eval_batch_size: int = pending(8, ge=1, description="Rows that are answered together.")
    deploy_timeout: int = pending(60, ge=1, description="Seconds to wait for the served model.")

    @field_validator("eval_limit")
    @classmethod
    def _number_or_slice(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d+|\[\d*:\d*(:\d+)?\]", value):
            raise ValueError("must be a number of rows or a slice such as [10:20]")
        return value
