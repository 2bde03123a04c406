"""Fine-tuning, from the configuration to the best checkpoint."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from llmtune import __version__
from llmtune.config import environment
from llmtune.config.commands import SftConfig
from llmtune.data.encode import check_dropped, encode_rows
from llmtune.data.load import Rows
from llmtune.data.report import DataReport
from llmtune.errors import CheckpointError, DataError, Interrupted, UsageError
from llmtune.interfaces.template import Template
from llmtune.interfaces.trainer import RunResult, TrainingJob
from llmtune.interfaces.tuner import Tuner, trainable_parameters
from llmtune.pipelines.prepare import (
    Prepared,
    find_model,
    load_model,
    make_template,
    prepare,
    quantizer_name,
    row_loader,
    with_folder,
)
from llmtune.plugins.catalogue import Catalogue
from llmtune.specs import Encoded, ModelSpec
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import CheckpointFiles
from llmtune.train.log import cut_log
from llmtune.train.run_folder import RunRecord, check_writable, create_run_folder, write_json


def sft(config: SftConfig, catalogue: Catalogue, values: Mapping[str, Any]) -> RunResult:
    """Train and return the result. Files are written into a new run folder once the data is known to be good."""
    prepared = prepare("sft", config, catalogue, values, _behaviours(config))
    check_writable(Path(config.training.output_dir))
    report = DataReport()
    rows = load_rows(prepared, report)
    spec = find_model(prepared)
    tokenizer = load_model(prepared, spec, weights=False).tokenizer
    template_spec, template = make_template(prepared, tokenizer)
    train_rows, eval_rows = encode(prepared, rows, template, report)
    with run_folder(prepared, spec, report) as folder:
        loaded = load_model(prepared, spec, weights=True)
        tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
        model = trainable(prepared, tuner, loaded.model)
        trainer = prepared.provide("llmtune_create_trainer", "trainer")
        files = CheckpointFiles(prepared.config.flat(), template_spec, template, tokenizer)
        result: RunResult = trainer.fit(
            TrainingJob(
                model=model,
                tokenizer=tokenizer,
                tuner=tuner,
                train_rows=train_rows,
                eval_rows=eval_rows,
                settings=prepared.config.training,
                evaluation=prepared.config.evaluation,
                folder=folder,
                resume_from=_resume_from(prepared.config),
                callbacks=_callbacks(prepared),
                write_extras=files.write,
                checkpoint_saved=lambda path: _notify(prepared, "llmtune_checkpoint_saved", folder=path),
            )
        )
        if result.stop_signal is None:
            _event(prepared, "llmtune_run_finished", result=result)
        finish(prepared, result, folder)
    return result


def _behaviours(config: SftConfig) -> dict[str, str | None]:
    return {
        "tuner": config.tuner.sft_type,
        "trainer": config.training.train_backend,
        "quantizer": quantizer_name(config),
    }


def _event(prepared: Prepared[SftConfig], hook: str, **arguments: Any) -> list[Any]:
    """Tell the plugins; every event of this pipeline belongs to rank 0."""
    return prepared.manager.event(hook, **arguments, run=prepared.run) if prepared.run.rank == 0 else []


def _notify(prepared: Prepared[SftConfig], hook: str, **arguments: Any) -> None:
    _event(prepared, hook, **arguments)


def _callbacks(prepared: Prepared[SftConfig]) -> list[Any]:
    return [callback for answer in _event(prepared, "llmtune_callbacks") for callback in answer]


def load_rows(prepared: Prepared[SftConfig], report: DataReport) -> Rows:
    """Read all datasets, before any weights are fetched."""
    data = prepared.config.data
    if not data.dataset:
        raise UsageError("no dataset was chosen", fix="add --dataset NAME_OR_FILE (llmtune datasets lists the names)")
    choices = prepared.choices
    seed = data.dataset_seed if data.dataset_seed is not None else prepared.config.training.seed
    return row_loader(prepared, report).load(
        choices.train, choices.validation, test_ratio=data.dataset_test_ratio, seed=seed
    )


def encode(
    prepared: Prepared[SftConfig], rows: Rows, template: Template, report: DataReport
) -> tuple[list[Encoded], list[Encoded]]:
    """Encode both splits, show what was left out, and fail when that is too much."""
    section = prepared.config.template
    options: dict[str, Any] = {
        "max_length": section.max_length,
        "truncation": section.truncation_strategy,
        "report": report,
    }
    train, validation = (encode_rows(part, template, **options) for part in (rows.train, rows.validation))
    report.train, report.validation = len(train), len(validation)
    for line in report.lines():
        prepared.run.say(line)
    check_dropped(report, prepared.config.data.max_dropped_ratio)
    if not train:
        raise DataError("no row is left to train on", fix="\n  ".join(report.lines()))
    return train, validation


@contextlib.contextmanager
def run_folder(prepared: Prepared[SftConfig], spec: ModelSpec, report: DataReport) -> Iterator[Path]:
    """Create the run's folder (or reopen the one that is resumed) and keep run.json up to date."""
    training = prepared.config.training
    resumed = _resume_from(prepared.config)
    if resumed is not None:
        folder = resumed.parent
        cut_log(folder, checkpoint.step_of(resumed))
    else:
        folder = create_run_folder(Path(training.output_dir), spec.name, suffix=training.add_output_dir_suffix)
    with_folder(prepared, folder)
    prepared.run.say(f"run folder: {folder}")
    record = RunRecord(folder, _record(prepared, spec))
    write_json(folder / "sft_args.json", prepared.config.flat())
    write_json(folder / "data_report.json", report.as_json())
    _event(prepared, "llmtune_rows_ready", report=report)
    with record.watching():
        try:
            yield folder
        except BaseException as error:
            _event(prepared, "llmtune_run_failed", error=error)
            raise


def _record(prepared: Prepared[SftConfig], spec: ModelSpec) -> dict[str, Any]:
    packages = ("torch", "transformers", "peft", "accelerate", "tokenizers")
    installed = {
        dist.metadata["Name"]: dist.version for name in packages for dist in metadata.Distribution.discover(name=name)
    }
    return {
        "llmtune": __version__,
        "model_source": spec.source,
        "plan": prepared.plan.as_json(),
        "packages": installed,
        "python": platform.python_version(),
        "environment": environment.recorded(),
    }


def _resume_from(config: SftConfig) -> Path | None:
    given = config.training.resume_from_checkpoint
    if given is None:
        return None
    folder = Path(given).expanduser().resolve()
    checkpoint.check_complete(folder)
    if not (folder / "optimizer.pt").exists():
        raise CheckpointError(
            f"checkpoint {folder} was saved with --save_only_model and cannot be resumed from",
            fix="train with --save_only_model false to be able to resume",
        )
    return folder


def trainable(prepared: Prepared[SftConfig], tuner: Tuner, model: Any) -> Any:
    """Return the model with its trainable parameters: fresh, or as the resumed checkpoint has them."""
    from transformers import set_seed

    set_seed(prepared.config.training.seed)  # adapters start from random numbers
    resumed = _resume_from(prepared.config)
    model = tuner.load(model, resumed, trainable=True) if resumed else tuner.prepare(model)
    if prepared.config.training.gradient_checkpointing:
        model.enable_input_require_grads()
    count, total = trainable_parameters(model)
    name = prepared.choices.behaviours["tuner"].name
    prepared.run.say(f"training {count:,} of {total:,} parameters ({count / total:.2%}) with {name}")
    return model


def finish(prepared: Prepared[SftConfig], result: RunResult, folder: Path) -> None:
    """Say what came out and how to try it; an interrupted run ends as one."""
    say = prepared.run.say
    if result.stop_signal is not None:
        fix = (
            f"go on with: --resume_from_checkpoint {result.last_checkpoint}"
            if result.last_checkpoint
            else "no checkpoint was written"
        )
        error = Interrupted(f"stopped at step {result.steps}", fix=fix)
        error.exit_code = 128 + result.stop_signal
        raise error
    if result.metrics.get("train_seconds"):
        say(f"trained {result.steps} steps in {result.metrics['train_seconds']:.0f} s")
    if (folder / "images").is_dir():
        say(f"curves: {folder / 'images'}")
    best = result.best_checkpoint
    if best is None:
        say("no checkpoint was written (--save_strategy no)")
        return
    loss = f" (eval_loss {result.metrics['eval_loss']:.4f} at the end)" if "eval_loss" in result.metrics else ""
    local = "".join(f" --custom_register_path {path}" for path in prepared.plan.local)
    say(f"best checkpoint: {best}{loss}\ntry it: llmtune infer --ckpt_dir {best}{local}")
