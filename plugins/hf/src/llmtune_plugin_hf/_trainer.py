"""The backend: settings of a job to a running `Loop`, and what came out of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llmtune.api import PaddingFree, RunResult, Stream, Trainer, TrainingJob, checkpoint, ranks, stop_requests, world
from llmtune_plugin_hf._adapted import base_of
from llmtune_plugin_hf._callbacks import Forward, Progress, StopWhenAsked, StopWithoutProgress, TunerSteps
from llmtune_plugin_hf._changed import Trained
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._forward import Forward as ForwardPass
from llmtune_plugin_hf._isolation import (
    can_be_padding_free,
    cannot_share_a_sequence,
    check_heads,
    keeps_apart,
    mixes_samples,
)
from llmtune_plugin_hf._loop import Loop, steps_done
from llmtune_plugin_hf._memory import Plan, keep_freed_memory
from llmtune_plugin_hf._passes import Passes
from llmtune_plugin_hf._sequence_parallel import SequenceParallel
from llmtune_plugin_hf._speed import Speed
from llmtune_plugin_hf._spread import Copies
from llmtune_plugin_hf._trackers import same_run, tensorboard, trackers
from llmtune_plugin_hf._varlen import VarlenAttention

if TYPE_CHECKING:
    from llmtune.api import OptimizerSection


class HfTrainer(Trainer):
    """Runs transformers' Trainer; `deepspeed` is a configuration of DeepSpeed."""

    def __init__(self, deepspeed: Mapping[str, Any] | None) -> None:
        self.deepspeed = deepspeed

    def fit(self, job: TrainingJob) -> RunResult:
        loop = make_loop(job, spread_of(job, self.deepspeed))
        writes = loop.args.should_save  # rank 0, or the only process
        if writes:
            checkpoint.clean(job.folder)
        set_seed(job.training.seed + loop.args.process_index)  # each rank draws dropout masks of its own
        recorded = same_run(job) if writes else contextlib.nullcontext()
        trained, before = Trained(job.model), steps_done(job.resume_from)
        closing = contextlib.closing(loop.progress)  # what an error says begins on a line of its own
        with stop_requests() as request, warnings.catch_warnings(), recorded, closing:
            # Accelerate passes --ddp_broadcast_buffers on under a name that torch 2.13 deprecates.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            loop.add_callback(StopWhenAsked(request))
            output = loop.train(resume_from_checkpoint=str(job.resume_from) if job.resume_from else None)
        if loop.state.global_step > before and not trained.has_changed() and ranks.is_first():
            print(
                f"warning: training changed nothing: all updates of {loop.state.global_step - before} steps were zero"
            )
            print("  raise --learning_rate, or see whether --sft_type and --target_modules train what you mean")
        loop.passes.forward.attention.remove(base_of(job.model))
        return RunResult(
            steps=loop.state.global_step,
            best_checkpoint=loop.best_checkpoint() if writes else None,
            last_checkpoint=checkpoint.newest(job.folder) if writes else None,
            metrics={
                **loop.last_metrics(),
                **loop.best_value(),
                "train_seconds": output.metrics["train_runtime"],
                **loop.speed.metrics(),
            },
            stop_signal=request.signal,
        )


def make_loop(job: TrainingJob, spread: Copies) -> Loop:
    """Build the loop with llmtune's own callbacks in place of the default ones."""
    if job.resume_from is not None:
        spread.check_resumable(job.resume_from)
    args = training_arguments(job, spread)
    use_one_gpu(args)
    if job.training.gpu_memory_fraction and args.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(job.training.gpu_memory_fraction, args.device)
    if args.device.type == "cpu":
        keep_freed_memory()
    speed = Speed(job.evaluation.metric_warmup_step)
    spread.place(job.model, args.device)
    loop = Loop(job, make_passes(job, args, spread), speed, spread, args=args)
    for default in (PrinterCallback, ProgressCallback):
        loop.remove_callback(default)
    loop.add_callback(TunerSteps(job.tuner))
    loop.progress = Progress(speed, show=not job.tracking.disable_tqdm)
    loop.add_callback(loop.progress)
    loop.add_callback(Forward(job.callbacks))
    if job.training.early_stop_interval:
        loop.add_callback(StopWithoutProgress(job.training.early_stop_interval, job.best_metric))
    if loop.args.should_save and (board := tensorboard(job)):
        loop.add_callback(board)
    return loop


def spread_of(job: TrainingJob, deepspeed: Mapping[str, Any] | None) -> Copies:
    """Choose how the model lies on the ranks."""
    if deepspeed:
        from llmtune_plugin_hf._zero import Zero

        return Zero(deepspeed, job.model)
    if not job.distributed.fsdp:
        return Copies()
    from llmtune_plugin_hf._fsdp import Shards
    from llmtune_plugin_hf._fsdp_settings import fsdp_settings

    return Shards(fsdp_settings(job.distributed, world()[1]))


def make_passes(job: TrainingJob, args: TrainingArguments, spread: Copies) -> Passes:
    """Choose between samples in one sequence, where the model keeps them apart, and padding; as before on a resume."""
    parallel = SequenceParallel(job.distributed.sequence_parallel_size)
    base, attention = base_of(job.model), VarlenAttention(parallel)
    forward = ForwardPass(base, attention, args.device, pin_memory=args.dataloader_pin_memory)
    pad = job.tokenizer.pad_token_id
    free = Collate(pad, padding_free=True, multiple_of=parallel.size)
    check_heads(base, parallel.size)
    before = Plan.read(job.resume_from) if job.resume_from else None
    wanted = job.training.padding_free and (before is None or isinstance(before.cut, PaddingFree))
    with spread.callable(job.model) as model:
        if wanted and can_be_padding_free(base, attention) and (before or keeps_apart(model, forward, free)):
            return Passes(forward, free)
        if parallel.size > 1:
            raise cannot_share_a_sequence(base)
        attention.remove(base)
        padded = Collate(pad, padding_free=False)
        if job.packed and not keeps_apart(model, forward, padded):
            raise mixes_samples(base)
    return Passes(forward, padded)


class _PlacedBefore(TrainingArguments):
    """For a model that lies where it is trained already."""

    @property
    def place_model_on_device(self) -> bool:
        return False


def training_arguments(job: TrainingJob, spread: Copies) -> TrainingArguments:
    """Translate the resolved settings to transformers' names."""
    training, optimizer, evaluation = job.training, job.optimizer, job.evaluation
    on_cpu = not torch.cuda.is_available()
    kind = _PlacedBefore if spread.in_parts else TrainingArguments
    return kind(
        **spread.settings,
        output_dir=str(job.folder),
        seed=training.seed,
        use_cpu=on_cpu,
        per_device_train_batch_size=job.rows_in_a_step,
        per_device_eval_batch_size=evaluation.eval_batch_size or training.batch_size,
        gradient_accumulation_steps=1,  # a step is one batch to transformers; `Passes` cuts it
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        learning_rate=optimizer.learning_rate or 0.0,
        **schedule(optimizer),
        warmup_steps=optimizer.warmup_steps or optimizer.warmup_ratio,
        optim=optimizer.optim,
        adam_beta1=optimizer.adam_beta1,
        adam_beta2=optimizer.adam_beta2,
        adam_epsilon=optimizer.adam_epsilon,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        dataloader_num_workers=training.dataloader_num_workers or 0,
        dataloader_pin_memory=training.dataloader_pin_memory and not on_cpu,
        dataloader_drop_last=training.dataloader_drop_last,
        logging_steps=job.tracking.logging_steps,
        logging_first_step=True,
        report_to=trackers(job),
        save_strategy=job.saving.save_strategy,
        save_steps=job.saving.save_steps or evaluation.eval_steps,
        save_only_model=bool(job.saving.save_only_model),
        save_on_each_node=job.saving.save_on_each_node,
        eval_strategy=evaluation.evaluation_strategy if job.eval_rows else "no",
        eval_steps=evaluation.eval_steps,
        ddp_backend=job.distributed.ddp_backend if world()[1] > 1 else None,
        ddp_find_unused_parameters=bool(job.distributed.ddp_find_unused_parameters),
        ddp_broadcast_buffers=bool(job.distributed.ddp_broadcast_buffers),
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=training.ignore_data_skip or isinstance(job.train_rows, Stream),
        logging_nan_inf_filter=False,
        full_determinism=training.full_determinism,
        label_names=["labels"],
    )


def schedule(optimizer: OptimizerSection) -> dict[str, Any]:
    """Return the schedule in transformers' words, which have a name of its own for a cosine that ends above zero."""
    name, settings = optimizer.lr_scheduler_type, dict(optimizer.lr_scheduler_kwargs or {})
    if optimizer.min_lr is not None:
        name, settings["min_lr"] = "cosine_with_min_lr", optimizer.min_lr
    return {"lr_scheduler_type": name, "lr_scheduler_kwargs": settings}


def use_one_gpu(args: TrainingArguments) -> None:
    """Keep transformers from splitting batches over all visible GPUs (DataParallel), which is slow and adds rows."""
    if args.n_gpu > 1:  # reading it sets the devices up
        print(f"note: {args.n_gpu} GPUs are visible and this process uses one; NPROC_PER_NODE={args.n_gpu} uses all")
        args._n_gpu = 1
