"""The backend: settings of a job to a running `Loop`, and what came out of it."""

from __future__ import annotations

import os
import warnings

import torch
from transformers import TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llmtune.api import RunResult, Stream, Trainer, TrainingJob, checkpoint, stop_requests, world
from llmtune_plugin_hf._callbacks import Forward, Progress, StopWhenAsked, TunerSteps
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._isolation import check_isolation
from llmtune_plugin_hf._loop import Loop


class HfTrainer(Trainer):
    """Runs transformers' Trainer."""

    def fit(self, job: TrainingJob) -> RunResult:
        loop = make_loop(job)
        writes = loop.args.should_save  # rank 0, or the only process
        if writes:
            checkpoint.clean(job.folder)
        if job.packed:
            check_isolation(loop.accelerator.unwrap_model(loop.model))
        set_seed(job.training.seed + loop.args.process_index)  # each rank draws dropout masks of its own
        with stop_requests() as request, warnings.catch_warnings():
            # Accelerate passes --ddp_broadcast_buffers on under a name that torch 2.13 deprecates.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            loop.add_callback(StopWhenAsked(request))
            output = loop.train(resume_from_checkpoint=str(job.resume_from) if job.resume_from else None)
        return RunResult(
            steps=loop.state.global_step,
            best_checkpoint=loop.best_checkpoint() if writes else None,
            last_checkpoint=checkpoint.newest(job.folder) if writes else None,
            metrics={**loop.last_metrics(), "train_seconds": output.metrics["train_runtime"]},
            stop_signal=request.signal,
        )


def make_loop(job: TrainingJob) -> Loop:
    """Build the loop with llmtune's own callbacks in place of the default ones."""
    args = training_arguments(job)
    use_one_gpu(args)
    loop = Loop(job, args=args, data_collator=Collate(job.tokenizer.pad_token_id))
    for default in (PrinterCallback, ProgressCallback):
        loop.remove_callback(default)
    loop.add_callback(TunerSteps(job.tuner))
    loop.add_callback(Progress(show=not job.tracking.disable_tqdm))
    loop.add_callback(Forward(job.callbacks))
    if loop.args.should_save and (board := tensorboard(job)):
        loop.add_callback(board)
    return loop


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """Translate the resolved settings to transformers' names."""
    training, optimizer, evaluation = job.training, job.optimizer, job.evaluation
    on_cpu = not torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(job.folder),
        seed=training.seed,
        use_cpu=on_cpu,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=evaluation.eval_batch_size or training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps or 1,
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        learning_rate=optimizer.learning_rate or 0.0,
        lr_scheduler_type=optimizer.lr_scheduler_type,
        lr_scheduler_kwargs=optimizer.lr_scheduler_kwargs or {},
        warmup_steps=optimizer.warmup_steps or optimizer.warmup_ratio,
        optim=optimizer.optim,
        adam_beta1=optimizer.adam_beta1,
        adam_beta2=optimizer.adam_beta2,
        adam_epsilon=optimizer.adam_epsilon,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=training.dataloader_num_workers or 0,
        dataloader_pin_memory=training.dataloader_pin_memory and not on_cpu,
        dataloader_drop_last=training.dataloader_drop_last,
        logging_steps=job.tracking.logging_steps,
        logging_first_step=True,
        report_to=trackers(job),
        save_strategy=job.saving.save_strategy,
        save_steps=job.saving.save_steps or evaluation.eval_steps,
        save_only_model=bool(job.saving.save_only_model),
        eval_strategy=evaluation.evaluation_strategy if job.eval_rows else "no",
        eval_steps=evaluation.eval_steps,
        ddp_backend=job.distributed.ddp_backend if world()[1] > 1 else None,
        ddp_find_unused_parameters=bool(job.distributed.ddp_find_unused_parameters),
        ddp_broadcast_buffers=bool(job.distributed.ddp_broadcast_buffers),
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=isinstance(job.train_rows, Stream),
        label_names=["labels"],
    )


def use_one_gpu(args: TrainingArguments) -> None:
    """Keep transformers from splitting batches over all visible GPUs (DataParallel), which is slow and adds rows."""
    if args.n_gpu > 1:  # reading it sets the devices up
        print(f"note: {args.n_gpu} GPUs are visible and this process uses one; NPROC_PER_NODE={args.n_gpu} uses all")
        args._n_gpu = 1


def trackers(job: TrainingJob) -> list[str]:
    """Return the trackers to report to, without tensorboard, whose folder llmtune chooses itself."""
    wanted = job.tracking.report_to
    names = get_available_reporting_integrations() if "all" in wanted else wanted
    return [name for name in names if name not in ("none", "tensorboard")]


def tensorboard(job: TrainingJob) -> TensorBoardCallback | None:
    """Return the callback that writes to `--logging_dir`, or None when it is not wanted."""
    if not {"tensorboard", "all"} & set(job.tracking.report_to):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(os.path.expanduser(job.tracking.logging_dir or job.folder / "runs")))
