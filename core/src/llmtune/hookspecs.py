"""The hooks of llmtune. docs/plugin-authors.md has one example for each.

Provider hooks are answered by the one plugin that owns the name (core answers for plugins that are
pure data); another plugin's `wrapper=True` implementation still wraps. Event hooks are called on
every active plugin in the order of activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from llmtune.specs import (
    DatasetSpec,
    LoadedModel,
    LoadOptions,
    ModelSpec,
    RunContext,
    RunPlan,
    SplitRecords,
    TemplateSpec,
)

if TYPE_CHECKING:
    from llmtune.interfaces.engine import Engine
    from llmtune.interfaces.hub import Hub
    from llmtune.interfaces.metric import Metric
    from llmtune.interfaces.preprocessor import Preprocessor
    from llmtune.interfaces.quantizer import Quantizer
    from llmtune.interfaces.template import Template
    from llmtune.interfaces.trainer import Callback, RunResult, Trainer
    from llmtune.interfaces.tuner import Tuner

PROJECT = "llmtune"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def llmtune_load_model(spec: ModelSpec, options: LoadOptions, run: RunContext) -> LoadedModel:
    """Load `spec.folder`. Called on every rank, once per run, after the rows were encoded.

    With `options.weights` False return the tokenizer alone, quickly. Core's implementation loads any
    native transformers model; answer this hook only for a layout that it cannot read.
    """


@hookspec(firstresult=True)
def llmtune_create_template(spec: TemplateSpec, tokenizer: Any, run: RunContext) -> Template:
    """Build the template of `spec`. Core's implementation renders any template that is pure data."""


@hookspec(firstresult=True)
def llmtune_create_preprocessor(name: str, options: Any, spec: DatasetSpec, run: RunContext) -> Preprocessor:
    """Build preprocessor `name` for the dataset `spec`.

    `options` is an instance of its options class, or None. What the dataset's manifest says under
    `arguments` is in `spec.facts`. Columns are renamed (`spec.columns`) before the preprocessor sees them.
    """


@hookspec(firstresult=True)
def llmtune_load_dataset(spec: DatasetSpec, split: str, run: RunContext) -> Iterable[Mapping[str, Any]] | SplitRecords:
    """Return the raw records of a dataset; `split` is "train".

    A dataset that brings its own validation part returns `SplitRecords`; else one is split off where
    the run wants one. Called on rank 0. Core's implementation reads files, folders and repositories of data files. Put
    the place of a record under the key "__source__" ("data.jsonl:12").
    """


@hookspec(firstresult=True)
def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Tuner:
    """Build tuner `name` with its validated options."""


@hookspec(firstresult=True)
def llmtune_create_trainer(name: str, options: Any, run: RunContext) -> Trainer:
    """Build trainer backend `name`."""


@hookspec(firstresult=True)
def llmtune_create_engine(name: str, options: Any, run: RunContext) -> Engine:
    """Build inference engine `name`; it loads nothing before `start`."""


@hookspec(firstresult=True)
def llmtune_create_hub(name: str, options: Any, run: RunContext) -> Hub:
    """Build hub `name`; it opens no connection before `snapshot`."""


@hookspec(firstresult=True)
def llmtune_create_quantizer(name: str, options: Any, run: RunContext) -> Quantizer:
    """Build quantizer `name` with its validated options."""


@hookspec(firstresult=True)
def llmtune_create_metric(name: str, options: Any, run: RunContext) -> Metric:
    """Build metric `name` with its validated options. Called on every rank of a run with --predict_with_generate."""


@hookspec
def llmtune_check_plan(plan: RunPlan, config: Any) -> Iterable[str]:
    """Return what is wrong with the plan, one sentence each; all plugins' answers are reported together.

    Called after names and flags are resolved, before any file is fetched or weights are loaded.
    """


@hookspec
def llmtune_adjust_plan(plan: RunPlan, config: Any) -> Mapping[str, Any]:
    """Return values for flags that the user left at None or AUTO, as {flag: value}.

    Called after the checks. A value that the user gave is never overridden; the plugin that chose a
    value is recorded in run.json.
    """


@hookspec
def llmtune_model_loaded(loaded: LoadedModel, run: RunContext) -> None:
    """Called on every rank when the base model is loaded, before the tuner. Exceptions stop the run."""


@hookspec
def llmtune_rows_ready(report: Any, run: RunContext) -> None:
    """Called on rank 0 when all rows are encoded, with the `DataReport`. A notification."""


@hookspec
def llmtune_callbacks(run: RunContext) -> Iterable[Callback]:
    """Return callbacks for the training loop. Called on rank 0."""


@hookspec
def llmtune_checkpoint_saved(folder: Path, run: RunContext) -> None:
    """Called on rank 0 when `folder` is a complete checkpoint. A notification."""


@hookspec
def llmtune_run_finished(result: RunResult, run: RunContext) -> None:
    """Called on rank 0 when training ended well, also early: `result.stop_signal` says so. A notification."""


@hookspec
def llmtune_run_failed(error: BaseException, run: RunContext) -> None:
    """Called on rank 0 when training ended with an error. A notification."""


NOTIFICATIONS = frozenset(
    {"llmtune_rows_ready", "llmtune_checkpoint_saved", "llmtune_run_finished", "llmtune_run_failed"}
)
"""Hooks whose exceptions are reported and do not stop the run."""

PURE_DATA = frozenset({"llmtune_load_model", "llmtune_create_template", "llmtune_load_dataset"})
"""Hooks that core answers where the owner has nothing to say: such rows can be pure data."""
