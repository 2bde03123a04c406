"""The hooks of a local plugin: they look up the function that was registered for a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmtune.hookspecs import hookimpl
from llmtune.specs import DatasetSpec, LoadedModel, LoadOptions, ModelSpec, RunContext, SplitRecords

Functions = Mapping[tuple[str, str], Callable[..., Any]]
"""(kind, name) -> function."""


def hooks_of(functions: Functions) -> Any:
    """Return a pluggy plugin that implements only the hooks that there are functions for."""
    used = {kind for kind, _ in functions}
    return type("LocalHooks", (), {h.__name__: staticmethod(h) for kind, h in _hooks(functions) if kind in used})()


def _hooks(functions: Functions) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (kind, hook implementation) pairs."""

    @hookimpl
    def llmtune_load_model(spec: ModelSpec, options: LoadOptions, run: RunContext) -> LoadedModel | None:
        function = functions.get(("model", spec.name))
        return None if function is None else _loaded(function, spec, options)

    @hookimpl
    def llmtune_load_dataset(spec: DatasetSpec, split: str, run: RunContext) -> Any:
        function = functions.get(("dataset", spec.name))
        return None if function is None else _records(function())

    @hookimpl
    def llmtune_create_preprocessor(name: str, options: Any, run: RunContext) -> Any:
        return functions.get(("preprocessor", name))

    @hookimpl
    def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Any:
        function = functions.get(("tuner", name))
        return function(options) if function is not None else None

    yield "model", llmtune_load_model
    yield "dataset", llmtune_load_dataset
    yield "preprocessor", llmtune_create_preprocessor
    yield "tuner", llmtune_create_tuner


def _loaded(function: Callable[..., Any], spec: ModelSpec, options: LoadOptions) -> LoadedModel:
    """Call a SWIFT-style `get_function(model_dir, torch_dtype, model_kwargs, load_model, **kwargs)`.

    The further keywords are those that somebody asked for: most functions know none of them.
    """
    asked = {
        "use_flash_attn": options.use_flash_attn,
        "trust_remote_code": options.trust_remote_code or None,
        "automodel_class": spec.facts.get("automodel_class"),
    }
    model, tokenizer = function(
        str(spec.folder) if spec.folder else None,
        options.torch_dtype if options.weights else None,
        dict(options.kwargs),
        options.weights,
        **{name: value for name, value in asked.items() if value is not None},
    )
    return LoadedModel(model=model, tokenizer=tokenizer)


def _records(found: Any) -> Iterable[Mapping[str, Any]] | SplitRecords:
    """Tell rows from SWIFT's pair (train, validation), whose second part may be None."""
    if isinstance(found, tuple) and len(found) == 2 and not isinstance(found[0], Mapping):
        train, validation = found
        return SplitRecords(train=train, validation=validation if validation is not None else ())
    records: Iterable[Mapping[str, Any]] = found
    return records
