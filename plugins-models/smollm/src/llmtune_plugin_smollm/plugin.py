"""Hooks of the SmolLM family: safetensors as any model, GGUF files converted once."""

from __future__ import annotations

from llmtune.api import LoadedModel, LoadOptions, ModelSpec, RunContext, hookimpl, load_pretrained


@hookimpl
def llmtune_load_model(spec: ModelSpec, options: LoadOptions, run: RunContext) -> LoadedModel | None:
    if spec.folder is None or (spec.folder / "config.json").exists():
        return None if spec.folder is None else load_pretrained(spec.folder, options)
    from llmtune_plugin_smollm._gguf import converted

    return load_pretrained(converted(spec.folder, weights=options.weights, say=run.say), options)
