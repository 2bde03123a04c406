"""Chatting with a model or checkpoint, or answering the rows of a dataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from llmtune.config.commands import InferConfig
from llmtune.errors import DataError, OutputError
from llmtune.infer.answer import Answerer, answer_rows
from llmtune.infer.chat import chat
from llmtune.interfaces.engine import Engine
from llmtune.paths import user_path
from llmtune.pipelines.data import load_rows, new_report
from llmtune.pipelines.merge import merged
from llmtune.pipelines.prepare import Prepared, prepare
from llmtune.pipelines.trained import checkpoint_folder, load_trained, trained_template
from llmtune.plugins.catalogue import Catalogue
from llmtune.specs import Row
from llmtune.train.checkpoint_files import generation_config, overwrite_generation_config


def infer(config: InferConfig, catalogue: Catalogue) -> Path | None:
    """Chat, or answer the validation rows and return the file with the results."""
    prepared = prepare("infer", config, catalogue)
    config = prepared.config
    rows = [] if config.inference.eval_human else asked_rows(prepared)
    loaded = merged(prepared) if config.merging.merge_lora else load_trained(prepared)
    _, template = trained_template(prepared, loaded.tokenizer)
    folder = checkpoint_folder(config)
    if folder is not None and config.inference.overwrite_generation_config:
        overwrite_generation_config(folder, generation_config(config.generation, template, loaded.tokenizer))
    engine: Engine = prepared.provide("llmtune_create_engine", "engine")
    with closing(engine):
        engine.start(loaded.model, loaded.tokenizer, loaded.choose)
        answerer = Answerer(
            engine,
            template,
            config.generation,
            stop_words=config.inference.stop_words,
            seed=config.inference.seed,
            max_length=config.template.max_length,
            truncation=config.template.truncation_strategy,
        )
        if config.inference.eval_human:
            chat(answerer, stream=config.inference.stream, adapters=loaded.adapters)
            return None
        result = _result_file(config, folder) if config.inference.save_result else None
        verbose = config.inference.verbose if config.inference.verbose is not None else len(rows) < 100
        size = config.inference.infer_batch_size
        count = answer_rows(answerer, rows, result, batch_size=size, verbose=verbose, adapters=loaded.adapters)
    prepared.run.say(f"{count} answers" + (f": {result}" if result else ""))
    return result


def asked_rows(prepared: Prepared[InferConfig]) -> Sequence[Row]:
    """Return the validation rows to answer, at most --show_dataset_sample."""
    config, report = prepared.config, new_report(prepared)
    rows = load_rows(prepared, report, test_ratio=config.data.dataset_test_ratio).validation
    report.check_dropped(config.data.max_dropped_ratio)
    for line in report.lines()[1:]:
        prepared.run.say(line)
    if not rows:
        raise DataError(
            "no row is left to answer: --dataset is split, and its validation part is empty",
            fix="give the rows with --val_dataset, or raise --dataset_test_ratio",
        )
    limit = config.inference.show_dataset_sample
    return rows if limit < 0 else rows[:limit]


def _result_file(config: InferConfig, folder: Path | None) -> Path:
    parent = user_path(config.inference.result_dir or (folder or Path("result")) / "infer_result")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--result_dir {parent} cannot be written: {error.strerror}", fix="choose another --result_dir"
        ) from error
    return parent / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
