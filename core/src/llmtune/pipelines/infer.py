"""Chatting with a model or checkpoint, or answering the rows of a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from llmtune.config.commands import InferConfig
from llmtune.config.field_names import option_names
from llmtune.data.report import DataReport
from llmtune.errors import DataError, OutputError
from llmtune.infer.answer import Answerer, answer_rows
from llmtune.infer.chat import chat
from llmtune.interfaces.engine import Engine
from llmtune.interfaces.tuner import Tuner
from llmtune.pipelines.prepare import (
    Prepared,
    find_model,
    load_model,
    make_template,
    prepare,
    quantizer_name,
    row_loader,
)
from llmtune.plugins.catalogue import Catalogue
from llmtune.specs import LoadedModel, ModelSpec, Row
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import read_arguments, read_template

# What a checkpoint says about itself. Code paths (custom_register_path, trust_remote_code) are never
# taken from it: a checkpoint may come from anybody.
_FROM_CHECKPOINT = (
    *("model_type", "model_id_or_path", "model_revision", "hub", "dtype"),
    *("sft_type", "template_type", "system", "quant_method", "quantization_bit"),
)
_DATASETS = ("dataset", "val_dataset", "dataset_seed", "dataset_test_ratio")


def infer(config: InferConfig, catalogue: Catalogue, values: Mapping[str, Any]) -> Path | None:
    """Chat, or answer the validation rows and return the file with the results."""
    folder = _checkpoint(config)
    prepared = prepare("infer", config, catalogue, values, _behaviours(config))
    rows = load_rows(prepared) if wants_dataset(config) else []
    loaded = load_trained(prepared, folder)
    _, template = make_template(prepared, loaded.tokenizer, _stored_template(prepared, folder))
    engine: Engine = prepared.provide("llmtune_create_engine", "engine")
    with closing(engine):
        engine.start(loaded.model, loaded.tokenizer)
        answerer = Answerer(engine, template, config.generation, seed=config.inference.seed)
        if not wants_dataset(config):
            chat(answerer, stream=config.inference.stream)
            return None
        result = _result_file(config, folder)
        answer_rows(answerer, rows, result, batch_size=config.inference.infer_batch_size, say=prepared.run.say)
    prepared.run.say(f"{len(rows)} answers: {result}")
    return result


def arguments_from_checkpoint(values: Mapping[str, Any], config: InferConfig, catalogue: Catalogue) -> dict[str, Any]:
    """Return the flags of the checkpoint with the user's own on top."""
    section = config.inference
    folder = _checkpoint(config)
    if folder is None or not section.load_args_from_ckpt_dir:
        return dict(values)
    wanted = [*_FROM_CHECKPOINT, *(flag for entry in catalogue.entries("quantizer") for flag in option_names(entry))]
    if section.load_dataset_config:
        wanted += [*_DATASETS, *(flag for entry in catalogue.entries("preprocessor") for flag in option_names(entry))]
    stored = read_arguments(folder)
    if {"model_type", "model_id_or_path"} & set(values):  # another base: its own model, hub and revision
        wanted = [flag for flag in wanted if flag not in ("model_type", "model_id_or_path", "model_revision", "hub")]
    return {**{flag: stored[flag] for flag in wanted if flag in stored}, **values}


def _checkpoint(config: InferConfig) -> Path | None:
    if config.inference.ckpt_dir is None:
        return None
    folder = Path(config.inference.ckpt_dir).expanduser()
    checkpoint.check_complete(folder)
    return folder


def _behaviours(config: InferConfig) -> dict[str, str | None]:
    engine = config.inference.infer_backend
    return {
        "tuner": config.inference.sft_type if config.inference.ckpt_dir else None,
        "engine": "transformers" if engine == "AUTO" else engine,
        "quantizer": quantizer_name(config),
    }


def _stored_template(prepared: Prepared[InferConfig], folder: Path | None) -> Any:
    user_chose = prepared.config.given("template_type") and prepared.config.template.template_type != "AUTO"
    stored = read_template(folder) if folder else None
    return None if stored is None or (user_chose and stored.name != prepared.choices.template.name) else stored


def wants_dataset(config: InferConfig) -> bool:
    """Rows are answered when a dataset was given, unless --eval_human says otherwise."""
    human = config.inference.eval_human
    return bool(config.data.dataset or config.data.val_dataset) if human is None else not human


def load_rows(prepared: Prepared[InferConfig]) -> list[Row]:
    """Return the validation rows to answer, at most --show_dataset_sample."""
    config, choices, report = prepared.config, prepared.choices, DataReport()
    seed = config.data.dataset_seed if config.data.dataset_seed is not None else config.inference.seed
    loader = row_loader(prepared, report)
    rows = loader.load(
        choices.train, choices.validation, test_ratio=config.data.dataset_test_ratio, seed=seed
    ).validation
    for line in report.lines()[1:]:
        prepared.run.say(line)
    if not rows:
        raise DataError(
            "no row is left to answer: --dataset is split, and its validation part is empty",
            fix="give the rows with --val_dataset, or raise --dataset_test_ratio",
        )
    limit = config.inference.show_dataset_sample
    return rows if limit < 0 else rows[:limit]


def load_trained(prepared: Prepared[InferConfig], folder: Path | None) -> LoadedModel:
    """Load the base model with the checkpoint's adapter, or the whole model of the checkpoint."""
    if folder is None:
        return load_model(prepared, find_model(prepared), weights=True)
    if prepared.choices.behaviours["tuner"].facts.get("saves") == "model":
        entry = prepared.choices.model.entry
        return load_model(
            prepared, ModelSpec(name=entry.name, facts=entry.facts, folder=folder, source=str(folder)), weights=True
        )
    loaded = load_model(prepared, find_model(prepared), weights=True)
    tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
    loaded.model = tuner.load(loaded.model, folder)
    return loaded


def _result_file(config: InferConfig, folder: Path | None) -> Path:
    parent = Path(config.inference.result_dir or (folder or Path("result")) / "infer_result").expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--result_dir {parent} cannot be written: {error.strerror}", fix="choose another --result_dir"
        ) from error
    return parent / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
