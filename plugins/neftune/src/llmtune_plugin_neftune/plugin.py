"""Hooks of the extension `neftune`. Reference: Jain et al., NEFTune (arXiv:2310.05914)."""

from __future__ import annotations

from llmtune.api import LoadedModel, RunContext, hookimpl


@hookimpl
def llmtune_model_loaded(loaded: LoadedModel, run: RunContext) -> None:
    """Add uniform noise of alpha / sqrt(length * width) to the embeddings of a batch, while training only.

    Both backends are the same noise: SWIFT's own and that of transformers, whose code adds it here.
    """
    from transformers.integrations.neftune import neftune_post_forward_hook

    embeddings = loaded.model.get_input_embeddings()
    embeddings.neftune_noise_alpha = run.options["extension", "neftune"].neftune_noise_alpha
    embeddings.register_forward_hook(neftune_post_forward_hook)
