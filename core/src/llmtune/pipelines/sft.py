"""Fine-tuning, from the configuration to the best checkpoint."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from llmtune import __version__
from llmtune.config import environment
from llmtune.config.commands import SftConfig
from llmtune.config.saving import SavingSection
from llmtune.data import identity
from llmtune.data.encode import tokenizer_identity
from llmtune.data.stream import Stream
from llmtune.errors import CheckpointError, Interrupted
from llmtune.interfaces.template import Template
from llmtune.interfaces.trainer import RunResult, Trainer, TrainingJob
from llmtune.interfaces.tuner import Tuner, trainable_parameters
from llmtune.model.device import described_processes
from llmtune.model.memory import device_memory, training_bytes
from llmtune.model.target_layers import frozen_experts
from llmtune.paths import user_path
from llmtune.pipelines.behaviours import switches
from llmtune.pipelines.data import load_rows, make_encoder, new_report
from llmtune.pipelines.generated_metrics import generated_metrics, questions
from llmtune.pipelines.prepare import (
    Prepared,
    find_model,
    is_loaded_in_parts,
    load_model,
    make_template,
    prepare,
    with_folder,
    with_steps,
)
from llmtune.pipelines.publish import Uploads, destination_of_run, uploads
from llmtune.pipelines.resume import abandon_later, check_settings
from llmtune.pipelines.training_data import TrainingData, training_data
from llmtune.plugins.catalogue import Catalogue
from llmtune.specs import LoadedModel, LoadOptions, ModelSpec, Row, TemplateSpec
from llmtune.table import text_table
from llmtune.train import checkpoint, ranks
from llmtune.train.checkpoint_files import CheckpointFiles
from llmtune.train.log import cut_log
from llmtune.train.run_folder import RunRecord, check_writable, create_run_folder, held, write_json


def sft(config: SftConfig, catalogue: Catalogue, *, command: str = "sft") -> RunResult | None:
    """Train and return the result, None after a dry run; every rank follows this recipe, rank 0 writes.

    Files are written into a new run folder once the data is known to be good.
    """
    prepared = prepare(command, config, catalogue)
    start = check(prepared, catalogue)
    resumed = None if config.saving.resume_only_model else start
    destination = destination_of_run(prepared)
    with ranks.first_alone():  # before they are connected: no timeout of a process group bounds it
        inputs = read_inputs(prepared)
    if resumed is not None:
        identity.check(resumed.parent, facts_of(prepared, inputs), inputs.data.rows and inputs.data.rows())
    tuner = make_tuner(prepared, inputs)
    prepared.run.say(f"training: {described_processes(prepared.run.world_size)}")
    with ranks.joined(prepared.config.distributed.ddp_backend):
        if prepared.config.rehearsal.dry_run:
            show_dry_run(prepared, inputs, tuner)
            return None
        with run_folder(prepared, inputs, resumed) as folder, uploads(prepared, destination, folder) as uploaded:
            watch_stream(inputs.data, folder)
            model = load_trainable(prepared, inputs, tuner, start)
            trainer: Trainer = prepared.provide("llmtune_create_trainer", "trainer")
            ended = trainer.fit(training_job(prepared, inputs, model, tuner, folder, resumed, uploaded))
            result = ranks.share(lambda: ended)  # only rank 0 looks for the best checkpoint
            finish_report(prepared, inputs.data, folder)
            _event(prepared, "llmtune_run_finished", result=result)
            finish(prepared, result, folder)
            uploaded.finish(result)
    return result


@dataclass(kw_only=True)
class Inputs:
    """What a run reads before it starts."""

    spec: ModelSpec
    tokenizer: Any
    skeleton: Any
    """The model's layers on the device "meta", None where they are not known without its weights."""
    template_spec: TemplateSpec
    template: Template
    data: TrainingData
    questions: Sequence[Row]
    """Validation rows that the model answers at each evaluation; none without --predict_with_generate."""


def check(prepared: Prepared[SftConfig], catalogue: Catalogue) -> Path | None:
    """Raise for what would stop the run later, and return the checkpoint to start from."""
    config = prepared.config
    ranks.check_backend(config.distributed.ddp_backend)
    check_writable(user_path(config.saving.output_dir))
    if config.tracking.logging_dir is not None:
        check_writable(user_path(config.tracking.logging_dir), "--logging_dir")
    start = _start_from(config.saving)
    if start is not None:
        check_settings(config, start, prepared.run.world_size, switches=switches(catalogue))
    new = start is None or config.saving.resume_only_model or checkpoint.step_of(start) < 0
    if new and not config.saving.add_output_dir_suffix:
        checkpoint.check_free(user_path(config.saving.output_dir))
    return start


def read_inputs(prepared: Prepared[SftConfig]) -> Inputs:
    """Read and encode the data; fetch the model, but load only its tokenizer."""
    config, report = prepared.config, new_report(prepared)
    rows = None
    if not config.preprocessing.streaming:
        rows = load_rows(prepared, report, test_ratio=config.data.dataset_test_ratio)
    spec = find_model(prepared, weights=not config.rehearsal.dry_run)
    loaded = load_model(prepared, spec, weights=False)
    template_spec, template = make_template(prepared, loaded.tokenizer)
    data = training_data(prepared, rows, make_encoder(prepared, template), report)
    with_steps(prepared, data.steps)
    return Inputs(
        spec=spec,
        tokenizer=loaded.tokenizer,
        skeleton=without_weights(loaded, config.model.dtype),
        template_spec=template_spec,
        template=template,
        data=data,
        questions=questions(prepared, data.questions, template),
    )


def make_tuner(prepared: Prepared[SftConfig], inputs: Inputs) -> Tuner:
    """Build the tuner, and let it prepare the model without weights: what it cannot do is refused before they load."""
    tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
    if inputs.skeleton is not None:
        inputs.skeleton = tuner.prepare(inputs.skeleton)
    return tuner


def facts_of(prepared: Prepared[SftConfig], inputs: Inputs) -> dict[str, Any]:
    """Return what a run is made of besides its settings and rows."""
    whole = prepared.choices.behaviours["tuner"].facts.get("saves") == "model"  # its checkpoints hold all weights
    return {
        "tokenizer": tokenizer_identity(inputs.tokenizer).hex(),
        "weights": {} if whole else identity.weights_identity(inputs.spec.folder),
    }


def watch_stream(data: TrainingData, folder: Path) -> None:
    """Compare the rows of a stream with those that the run has read before, while they are read again."""
    if isinstance(data.train, Stream):
        data.train.lines = identity.watched(data.train.lines, folder, writes=ranks.is_first())


def without_weights(loaded: LoadedModel, dtype: str) -> Any:
    """Return the model's layers on the device "meta"."""
    return None if loaded.skeleton is None else loaded.skeleton(LoadOptions(dtype=dtype).torch_dtype)


def load_trainable(prepared: Prepared[SftConfig], inputs: Inputs, tuner: Tuner, start: Path | None) -> Any:
    """Load the weights, and return the model with its trainable parameters."""
    together = is_loaded_in_parts(prepared.config)
    with contextlib.nullcontext() if together else ranks.first_alone():
        loaded = load_model(prepared, inputs.spec, weights=True)
    model = trainable(prepared, tuner, loaded.model, start)
    count, total = trainable_parameters(inputs.skeleton or model)  # packed weights count as what they stand for
    name = prepared.choices.behaviours["tuner"].name
    if experts := frozen_experts(inputs.skeleton or model):
        prepared.run.say(f"note: {experts}")
    prepared.run.say(f"training {count:,} of {total:,} parameters ({count / total:.2%}) with {name}")
    return model


def training_job(
    prepared: Prepared[SftConfig],
    inputs: Inputs,
    model: Any,
    tuner: Tuner,
    folder: Path,
    resumed: Path | None,
    uploaded: Uploads,
) -> TrainingJob:
    """Return all that a trainer backend needs to know."""
    config, data = prepared.config, inputs.data
    arguments = config.flat()  # with the hub that served the model
    generated = generated_metrics(prepared, inputs.questions, inputs.template, inputs.tokenizer, folder)

    def checkpoint_saved(path: Path, is_best: bool) -> None:
        _event(prepared, "llmtune_checkpoint_saved", folder=path)
        uploaded.checkpoint_saved(path, is_best)

    files = CheckpointFiles(arguments, inputs.template_spec, inputs.template, inputs.tokenizer, config.generation)
    return TrainingJob(
        model=model,
        tokenizer=inputs.tokenizer,
        tuner=tuner,
        train_rows=data.train,
        eval_rows=data.validation,
        lengths=data.lengths,
        sources=data.sources,
        packed=config.preprocessing.packing,
        training=config.training,
        optimizer=config.optimizer,
        evaluation=config.evaluation,
        saving=config.saving,
        tracking=config.tracking,
        distributed=config.distributed,
        folder=folder,
        resume_from=resumed,
        callbacks=_callbacks(prepared),
        write_extras=files.write,
        checkpoint_saved=checkpoint_saved,
        generated_metrics=generated,
        best_metric=generated.best if generated else ("eval_loss", False),
        left_out=data.left_out,
    )


def _event(prepared: Prepared[SftConfig], hook: str, **arguments: Any) -> list[Any]:
    """Tell the plugins; every event of this pipeline belongs to rank 0."""
    return prepared.manager.event(hook, **arguments, run=prepared.run) if prepared.run.rank == 0 else []


def _callbacks(prepared: Prepared[SftConfig]) -> list[Any]:
    return [callback for answer in _event(prepared, "llmtune_callbacks") for callback in answer]


@contextlib.contextmanager
def run_folder(prepared: Prepared[SftConfig], inputs: Inputs, resumed: Path | None) -> Iterator[Path]:
    """Create the run's folder (or reopen the one that is resumed), hold it, and keep a record in it."""
    with contextlib.ExitStack() as hold:
        folder = ranks.share(lambda: _open_folder(prepared, inputs.spec, resumed, hold))
        with_folder(prepared, folder)
        prepared.run.say(f"run folder: {folder}")
        with _recorded(prepared, inputs, folder):
            if resumed is None and ranks.is_first():
                rows = inputs.data.rows
                identity.write(folder, facts_of(prepared, inputs), rows() if rows else ())
            yield folder


@contextlib.contextmanager
def _recorded(prepared: Prepared[SftConfig], inputs: Inputs, folder: Path) -> Iterator[None]:
    """Write what the run is and has read, and in run.json how it ends; rank 0 does it."""
    if not ranks.is_first():
        if prepared.config.saving.save_on_each_node:
            folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    record, report = RunRecord(folder, _record(prepared, inputs.spec)), inputs.data.report
    with record.watching():
        write_json(folder / "sft_args.json", prepared.config.flat())
        write_json(folder / "data_report.json", report.as_json())
        report.draw(folder)
        _event(prepared, "llmtune_rows_ready", report=report)
        try:
            yield
        except Interrupted:  # raised by `finish`: the run ended well
            raise
        except BaseException as error:
            _event(prepared, "llmtune_run_failed", error=error)
            raise


def finish_report(prepared: Prepared[SftConfig], data: TrainingData, folder: Path) -> None:
    """Write the report again where rows were encoded while the model trained."""
    if data.is_complete or not ranks.is_first():
        return
    write_json(folder / "data_report.json", data.report.as_json())
    data.report.draw(folder)
    for line in data.report.lines():
        prepared.run.say(line)


def _open_folder(
    prepared: Prepared[SftConfig], spec: ModelSpec, resumed: Path | None, hold: contextlib.ExitStack
) -> Path:
    """Return the run's folder, which no other run writes into until `hold` is closed."""
    config = prepared.config
    if resumed is not None and checkpoint.step_of(resumed) >= 0:  # else one from a hub: last-checkpoint
        hold.enter_context(held(resumed.parent, prepared.run.say))
        if (aside := abandon_later(resumed)) is not None:
            prepared.run.say(f"checkpoints that came after {resumed.name} are in {aside} now")
        cut_log(resumed.parent, checkpoint.step_of(resumed))
        return resumed.parent
    folder = create_run_folder(
        user_path(config.saving.output_dir), spec.name, suffix=config.saving.add_output_dir_suffix
    )
    hold.enter_context(held(folder, prepared.run.say))
    checkpoint.check_free(folder)  # another run may have ended in it since this one looked
    cut_log(folder, -1)  # of a run that was killed before its first checkpoint
    return folder


def show_dry_run(prepared: Prepared[SftConfig], inputs: Inputs, tuner: Tuner) -> None:
    """Say what the run would do: its names, every value that a rule chose, its size and the number of steps."""
    say, config, data = prepared.run.say, prepared.config, inputs.data
    for kind, name in prepared.plan.choices.items():
        say(f"{kind}: {name}")
    say(f"from: {inputs.spec.source}")
    chosen = prepared.plan.resolved.items()
    say(text_table(["FLAG", "VALUE", "RULE"], [[flag, str(one["value"]), one["rule"]] for flag, one in chosen]))
    world = prepared.run.world_size
    readers = config.distributed.readers(world)
    rows = config.training.batch_size * (config.training.gradient_accumulation_steps or 1) * readers
    say(f"{data.steps} steps of {rows} {data.unit} ({data.described()}, {world} processes)")
    if inputs.skeleton is not None:
        count, total = trainable_parameters(inputs.skeleton)
        needed = training_bytes(inputs.skeleton, tuner, bits=config.quantization.quantization_bit)
        say(f"{count:,} of {total:,} parameters are trained ({count / total:.2%})")
        if experts := frozen_experts(inputs.skeleton):
            say(f"note: {experts}")
        say(f"{needed / 1e9:.2f} GB for weights, gradients and optimizer; activations come on top")
        for line in cost_of_steps(inputs.skeleton, needed, data.tokens_in_a_step(rows), data.steps, readers):
            say(line)
    say("dry run: nothing was trained or written")


def cost_of_steps(skeleton: Any, held: int, tokens: float | None, steps: int, readers: int) -> Iterator[str]:
    """Yield what activations and a step take about; `tokens` of a step, None where rows are not read yet."""
    from llmtune.model.step_cost import operations_per_second, step_cost

    cost = step_cost(skeleton)
    if cost is None:
        yield "what a step takes cannot be told from the layers of this model without its weights"
        return
    there, device = device_memory()
    there //= environment.local_world_size() if device == "RAM" else 1  # its processes share it
    fit = max(0, int((there - held) / cost.kept_bytes))
    yield (
        f"{cost.kept_bytes / 1e6:.2f} MB of activations for each token that is computed at once; "
        f"{there / 1e9:.0f} GB ({device}) hold about {fit:,}"
    )
    rate = operations_per_second(skeleton.dtype)
    seconds = cost.operations * (tokens or 1000) / readers / rate
    if tokens is None:
        yield f"about {seconds:.2g} s for 1,000 tokens on this machine, at {rate / 1e9:,.0f} GFLOP/s"
    else:
        yield (
            f"about {seconds:.2g} s for a step of {tokens:,.0f} tokens on this machine, at {rate / 1e9:,.0f} GFLOP/s; "
            f"{seconds * steps / 60:,.1f} minutes in all"
        )


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


def _start_from(saving: SavingSection) -> Path | None:
    if saving.resume_from_checkpoint is None:
        return None
    folder = user_path(saving.resume_from_checkpoint).resolve()
    if saving.resume_only_model:
        checkpoint.check_readable(folder)
        return folder
    checkpoint.check_complete(folder)
    if not (folder / "optimizer.pt").exists() and not list(folder.glob("global_step*")):  # DeepSpeed's
        raise CheckpointError(
            f"checkpoint {folder} was saved with --save_only_model and cannot be resumed from",
            fix="add --resume_only_model true to start anew from its weights; "
            "train with --save_only_model false to be able to resume",
        )
    return folder


def trainable(prepared: Prepared[SftConfig], tuner: Tuner, model: Any, start: Path | None) -> Any:
    """Return the model with its trainable parameters: fresh, or as a checkpoint has them."""
    from transformers import set_seed

    set_seed(prepared.config.training.seed)  # adapters start from random numbers
    model = tuner.load(model, start, trainable=True) if start else tuner.prepare(model)
    if prepared.config.quantization.quantization_bit:
        model.enable_input_require_grads()  # on CPUs bitsandbytes has no backward pass where an input needs no gradient
    return model


def finish(prepared: Prepared[SftConfig], result: RunResult, folder: Path) -> None:
    """Say what came out and how to try it; an interrupted run ends as one."""
    say = prepared.run.say
    if result.stop_signal is not None:
        fix = (
            f"go on with the same command and: --resume_from_checkpoint {result.last_checkpoint}"
            if result.last_checkpoint
            else "no checkpoint was written"
        )
        error = Interrupted(f"stopped at step {result.steps}", fix=fix)
        error.exit_code = 128 + result.stop_signal
        raise error
    if result.metrics.get("train_seconds"):
        say(_speed(result))
    if (folder / "images").is_dir():
        say(f"curves: {folder / 'images'}")
    best = result.best_checkpoint
    if best is None:
        why = " (--save_strategy no)" if prepared.config.saving.save_strategy == "no" else ""
        say(f"no checkpoint was written{why}")
        return
    found = [(name, value) for name, value in result.metrics.items() if name.startswith("best_")]
    loss = "".join(f" ({name.removeprefix('best_')} {value:.4f})" for name, value in found)
    local = "".join(f" --custom_register_path {path}" for path in prepared.plan.local)
    say(f"best checkpoint: {best}{loss}\ntry it: llmtune infer --ckpt_dir {best}{local}")


def _speed(result: RunResult) -> str:
    """Say how long a run took, and what of it backends measure."""
    found, seconds = result.metrics, result.metrics["train_seconds"]
    parts = [f"trained {result.steps} steps in {seconds:.1f} s"]
    if "tokens_per_second" in found:
        parts.append(f"{found['tokens_per_second']:.0f} tokens/s in steps alone")
        parts.append(f"{found['padding']:.0%} of it padding")
        parts.append(f"at most {found['memory_gb']:.1f} GB")
    return ", ".join(parts)
