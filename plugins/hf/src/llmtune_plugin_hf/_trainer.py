"""The backend: settings of a job to a running `Loop`, and what came out of it."""

from __future__ import annotations

import torch
from transformers import TrainingArguments
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llmtune.api import RunResult, Trainer, TrainingJob, checkpoint, stop_requests
from llmtune_plugin_hf._callbacks import Forward, Progress, StopWhenAsked
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._loop import Loop


class HfTrainer(Trainer):
    """Runs transformers' Trainer."""

    def fit(self, job: TrainingJob) -> RunResult:
        loop = make_loop(job)
        checkpoint.clean(job.folder)
        with stop_requests() as request:
            loop.add_callback(StopWhenAsked(request))
            output = loop.train(resume_from_checkpoint=str(job.resume_from) if job.resume_from else None)
        return RunResult(
            steps=loop.state.global_step,
            best_checkpoint=loop.best_checkpoint(),
            last_checkpoint=checkpoint.newest(job.folder),
            metrics={**loop.last_metrics(), "train_seconds": output.metrics["train_runtime"]},
            stop_signal=request.signal,
        )


def make_loop(job: TrainingJob) -> Loop:
    """Build the loop with llmtune's own callbacks in place of the default ones."""
    loop = Loop(job, args=training_arguments(job), data_collator=Collate(job.tokenizer.pad_token_id))
    for default in (PrinterCallback, ProgressCallback):
        loop.remove_callback(default)
    loop.add_callback(Progress(show=not job.settings.disable_tqdm))
    loop.add_callback(Forward(job.callbacks))
    if board := tensorboard(job):
        loop.add_callback(board)
    return loop


def training_arguments(job: TrainingJob) -> TrainingArguments:
    """Translate the resolved settings to transformers' names."""
    settings, evaluation = job.settings, job.evaluation
    on_cpu = not torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(job.folder),
        seed=settings.seed,
        use_cpu=on_cpu,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=evaluation.eval_batch_size or settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps or 1,
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate or 0.0,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps or settings.warmup_ratio,
        optim=settings.optim,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=settings.dataloader_num_workers or 0,
        dataloader_pin_memory=not on_cpu,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        report_to=trackers(job),
        save_strategy=settings.save_strategy,
        save_steps=settings.save_steps or evaluation.eval_steps,
        save_only_model=bool(settings.save_only_model),
        eval_strategy=evaluation.evaluation_strategy if job.eval_rows else "no",
        eval_steps=evaluation.eval_steps,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )


def trackers(job: TrainingJob) -> list[str]:
    """Return the trackers to report to, without tensorboard, whose folder llmtune chooses itself."""
    wanted = job.settings.report_to
    names = get_available_reporting_integrations() if "all" in wanted else wanted
    return [name for name in names if name not in ("none", "tensorboard")]


def tensorboard(job: TrainingJob) -> TensorBoardCallback | None:
    """Return the callback that writes to `--logging_dir`, or None when it is not wanted."""
    if not {"tensorboard", "all"} & set(job.settings.report_to):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(job.settings.logging_dir or str(job.folder / "runs")))
