"""Core's own answers to the hooks, as the plugin `llmtune.builtin`: same contract, same path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmtune.data import preprocess
from llmtune.data.files import read_records
from llmtune.data.subsets import read_subsets, wanted_subsets
from llmtune.hookspecs import hookimpl
from llmtune.interfaces.preprocessor import Preprocessor
from llmtune.interfaces.template import Template
from llmtune.interfaces.trainer import Callback, RunResult
from llmtune.specs import DatasetSpec, LoadedModel, LoadOptions, ModelSpec, RunContext, SplitRecords, TemplateSpec
from llmtune.train.log import JsonlLog, draw_curves


@hookimpl
def llmtune_load_model(spec: ModelSpec, options: LoadOptions, run: RunContext) -> LoadedModel | None:
    from llmtune.model.load import load_pretrained

    if spec.folder is None:
        return None
    return load_pretrained(spec.folder, options, automodel_class=spec.facts.get("automodel_class"))


@hookimpl
def llmtune_create_template(spec: TemplateSpec, tokenizer: Any, run: RunContext) -> Template:
    from llmtune.template.carried import CarriedTemplate
    from llmtune.template.chat_format import ChatFormat

    if spec.name == "jinja":
        return CarriedTemplate(spec.name, tokenizer, spec.default_system)
    return ChatFormat(spec, tokenizer)


@hookimpl
def llmtune_create_preprocessor(name: str, options: Any, spec: DatasetSpec, run: RunContext) -> Preprocessor | None:
    if name == "auto":
        return preprocess.Auto(spec.columns)
    return preprocess.Fill(**spec.facts.get("arguments", {})) if name == "fill" else None


@hookimpl
def llmtune_load_dataset(
    spec: DatasetSpec, split: str, run: RunContext
) -> Iterable[Mapping[str, Any]] | SplitRecords | None:
    if spec.path is None:
        return None
    if not spec.path.is_dir():
        return read_records(spec.path)
    train, validation = wanted_subsets(spec.path, spec.facts, spec.subsets)
    return SplitRecords(
        train=read_records(spec.path) if train is None else read_subsets(spec.path, train),
        validation=read_subsets(spec.path, validation),
    )


@hookimpl
def llmtune_callbacks(run: RunContext) -> Iterable[Callback]:
    return [JsonlLog(_folder(run))]


@hookimpl
def llmtune_run_finished(result: RunResult, run: RunContext) -> None:
    draw_curves(_folder(run))


@hookimpl
def llmtune_run_failed(error: BaseException, run: RunContext) -> None:
    draw_curves(_folder(run))


def _folder(run: RunContext) -> Path:
    if run.folder is None:
        raise ValueError("this hook belongs to commands with a run folder")
    return run.folder
