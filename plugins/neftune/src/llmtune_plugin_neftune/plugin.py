"""Hooks of the extension `neftune`. Reference: Jain et al., NEFTune (arXiv:2310.05914)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmtune.api import LoadedModel, RunContext, hookimpl


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    if config.distributed.sequence_parallel_size > 1:
        yield "--neftune_noise_alpha needs the length of whole samples, not the slices of --sequence_parallel_size"


@hookimpl
def llmtune_model_loaded(loaded: LoadedModel, run: RunContext) -> None:
    """Add uniform noise of alpha / sqrt(length * width) to the embeddings of each sample, while training only.

    Both backends are the same noise, SWIFT's own and that of transformers. The length is the sample's own:
    neither padding nor other samples of the same sequence make its noise smaller.
    """
    from llmtune_plugin_neftune._noise import add_noise

    add_noise(loaded.model, run.options["extension", "neftune"].neftune_noise_alpha)
