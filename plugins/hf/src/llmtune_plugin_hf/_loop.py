"""transformers' Trainer with the optimizer step as its unit, exact evaluation and checkpoints that are never half."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import Trainer, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerState

from llmtune.api import OutputError, PaddingFree, Stream, TrainingJob, WholeModelTuner, checkpoint, ranks
from llmtune_plugin_hf._adapted import base_of
from llmtune_plugin_hf._evaluate import evaluated
from llmtune_plugin_hf._failures import diverged
from llmtune_plugin_hf._forward import eval_mode
from llmtune_plugin_hf._memory import Plan, find_plan, held_bytes, lowered, set_recompute
from llmtune_plugin_hf._passes import Passes
from llmtune_plugin_hf._rates import learn_at_their_own_rates, warm_up_above_zero
from llmtune_plugin_hf._speed import Speed
from llmtune_plugin_hf._spread import Copies
from llmtune_plugin_hf._steps import (
    RankSteps,
    Rows,
    Step,
    StreamSteps,
    as_it_is,
    leave_ctrl_c_to_the_loop,
    longest_first,
    shuffled,
)

_TUNER_STATE = "tuner_state.safetensors"


class Loop(Trainer):
    """One training run of one job.

    For transformers a step has one batch: all rows that a rank has of it. `Passes` computes it in parts.
    """

    control: Any
    optimizer: Any

    def __init__(self, job: TrainingJob, passes: Passes, speed: Speed, spread: Copies, **kwargs: Any) -> None:
        with _seen_as_adapted(job.model):
            super().__init__(
                model=job.model,
                train_dataset=None if isinstance(job.train_rows, Stream) else Rows(job.train_rows),
                eval_dataset=Rows(job.eval_rows) if job.eval_rows else None,
                data_collator=as_it_is,
                **kwargs,
            )
        self.job, self.passes, self.speed, self.spread = job, passes, speed, spread
        self.passes.engine = self
        if spread.owns_gradients():
            self.accelerator.prepare_model = _as_it_is  # accelerate would wrap it in DDP, or refuse its DTensors
        self.plan = Plan.read(job.resume_from) if job.resume_from else None
        self._rng_of: str | None = None
        """The checkpoint whose random numbers the first step goes on with."""
        self.right = [0, 0]
        """Predictions that were right since they were logged last, of how many; on this rank."""
        self._unwrapped: Any = self.model  # `model_wrapped` is what DDP and DeepSpeed make of it
        self._base = base_of(self._unwrapped)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if not self.is_deepspeed_enabled:
            # accelerate imports DeepSpeed, wherever it is installed, to see that a model is none of its engines:
            # seconds, and a warning.
            self.accelerator.unwrap_model = _inside_of_ddp

    # --- rows -------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Step]:
        rows, training = self.job.train_rows, self.job.training
        parallel = self.passes.forward.parallel
        place = {"rank": parallel.reader, "world_size": parallel.readers}
        size = self.job.rows_in_a_step * parallel.readers
        if isinstance(rows, Stream):
            start = 0 if training.ignore_data_skip else steps_done(self.job.resume_from)
            # It encodes in threads of its own and counts what it leaves out: it needs no worker process.
            steps = StreamSteps(rows, size=size, start=start, **place)
            return DataLoader(steps, batch_size=None, collate_fn=as_it_is)
        used = len(rows)
        if training.dataloader_drop_last:
            used -= used % (training.batch_size * parallel.readers)
        numbers = RankSteps(used, size=size, lengths=self.job.lengths, order=self._order, **place)
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_sampler=numbers,
            collate_fn=as_it_is,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            worker_init_fn=leave_ctrl_c_to_the_loop,
        )

    def _order(self) -> list[int]:
        """Return the row numbers in the order of the epoch that begins, or that a resumed run begins inside of."""
        if self.job.training.test_oom_error and self.job.lengths is not None:
            return longest_first(self.job.lengths)
        return shuffled(len(self.train_dataset), self.args.seed + int(self.state.epoch or 0))

    # --- the tuner's part ----------------------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer | None = self.optimizer
        if made is not None:  # DeepSpeed has asked for it before
            return made
        tuner, parameters = self.job.tuner, dict(self._unwrapped.named_parameters())
        self.optimizer = tuner.optimizer(self._unwrapped, self.job.optimizer)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        factors = tuner.learning_rates(self._unwrapped)
        learn_at_their_own_rates(optimizer, {id(parameters[name]): factor for name, factor in factors.items()})
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> torch.optim.lr_scheduler.LRScheduler:
        made = self.lr_scheduler is None
        scheduler: torch.optim.lr_scheduler.LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        if made:
            warm_up_above_zero(scheduler, self.args.get_warmup_steps(num_training_steps), num_training_steps)
        return scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.spread.load_optimizer(self, Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (path := Path(checkpoint) / _TUNER_STATE).is_file():
            self.job.tuner.load_training_state(self._unwrapped, load_file(path))

    # --- steps ------------------------------------------------------------------------------------

    def _run_epoch(self, **epoch: Any) -> None:
        """Without it, a run that is resumed from its last step would go on beyond it."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**epoch)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Step], None]:
        """Without the count of targets, which `Passes` makes."""
        return [next(epoch_iterator)], None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of a step, in smaller parts if memory does not hold them; return the loss."""
        step: Step = inputs
        if self._rng_of is not None:
            self._load_rng_state(self._rng_of)
            self._rng_of = None
        self._leave_out(step)
        self.speed.begin()
        model.train()
        if hasattr(self.optimizer, "train"):  # optimizers without a schedule
            self.optimizer.train()
        self._use_plan(model)
        number = self.state.global_step + 1
        measures = number % self.job.evaluation.acc_steps == 0
        while True:
            try:
                outcome = self.passes.run(
                    model,
                    step,
                    penalty=lambda: self.job.tuner.penalty(self._unwrapped),
                    measure=self.job.evaluation.acc_strategy if measures else None,
                )
                break
            except torch.OutOfMemoryError:
                self._lower(model, step)
        finite = bool(torch.isfinite(outcome.loss))
        if not self.passes.forward.parallel.all(finite, outcome.loss.device):
            raise diverged(self.job, self.passes, model, step, number, "loss")
        self.spread.update(self)
        if outcome.right is not None:
            self.right = [old + int(new) for old, new in zip(self.right, outcome.right.tolist(), strict=True)]
        self.state.num_input_tokens_seen += outcome.tokens
        self.speed.end(outcome.tokens, outcome.padding, steps=self.state.max_steps)
        self._step = step
        return outcome.loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = self.spread.clip(model, self.args.max_grad_norm)
        norm = super()._clip_grad_norm(model) if norm is None else norm
        if not torch.isfinite(torch.as_tensor(norm)):
            number = self.state.global_step + 1
            raise diverged(self.job, self.passes, model, self._step, number, "norm of the gradients")
        return norm

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = self.spread.clip(model, float("inf")) if grad_norm is None else grad_norm
        return super()._get_grad_norm(model, norm)

    @property
    def in_parts(self) -> bool:
        return self.spread.in_parts or self.passes.forward.parallel.size > 1

    def without_sync(self, model: Any) -> AbstractContextManager[None]:
        return self.spread.without_sync(self, model)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.spread.backward(self, loss, last=last)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nobody asks, and a step is no batch of tensors

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """`training_step` counts them."""

    def _leave_out(self, step: Step) -> None:
        """Report rows that turned out to be unusable while the model trains."""
        for row in step.rows:
            if "problem" in row and self.job.left_out is not None:
                self.job.left_out(*row["problem"])

    # --- memory -----------------------------------------------------------------------------------

    def _use_plan(self, model: Any) -> None:
        if self.passes.cut is None:
            if self.plan is not None and isinstance(self.plan.cut, PaddingFree) != self.passes.collate.padding_free:
                self.plan = None  # --padding_free was another one
            held = held_bytes(self.job, self._unwrapped, optimizer_is_filled=bool(self.optimizer.state))
            self.plan = self.plan or find_plan(self.job, self.passes, model, self._base, held)
            self._set_plan(self.plan)
            self._say(f"{self.plan}")

    def _lower(self, model: Any, step: Step) -> None:
        assert self.plan is not None
        model.zero_grad()
        torch.cuda.empty_cache()
        self._set_plan(lowered(self.plan, self.job, step.lengths, self._base))
        self._say(f"note: memory did not hold step {self.state.global_step + 1}; from here on {self.plan}")

    def _set_plan(self, plan: Plan) -> None:
        self.plan, self.passes.cut = plan, plan.cut
        set_recompute(self._base, plan.recompute)

    def _say(self, line: str) -> None:
        if self.is_world_process_zero():
            print(line)

    # --- evaluation and logs ----------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss per target token over the whole validation set of all ranks, and the accuracy.

        Training goes on as if this had not been.
        """
        rows: Any = self.eval_dataset
        was_training = self.model.training
        eval_mode(self.model)
        self._use_plan(self.model)
        evaluation = self.job.evaluation
        measured = evaluated(
            self.passes,
            self.model_wrapped,
            rows,
            rows_at_once=16 * self.args.eval_batch_size * self.args.world_size,
            measure=evaluation.acc_strategy,
        )
        if self.job.generated_metrics is not None:
            measured |= self.job.generated_metrics(self._unwrapped, self.state.global_step)
        self.model.train(was_training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what transformers does not count. A stream that is resumed skips rows that it does not know of."""
        if isinstance(self.job.train_rows, Stream):
            self.state.epoch = self.state.global_step / self.state.max_steps
        if "loss" in logs:
            right, counted = (int(number) for number in ranks.total(self.right))
            logs |= {"acc": right / counted} if counted else {}
            self.right = [0, 0]
            if self.job.tracking.include_num_input_tokens_seen:
                logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        super().log(logs)

    def last_metrics(self) -> dict[str, float]:
        """Return the last training and validation loss that were logged."""
        seen = {key: value for line in self.state.log_history for key, value in line.items()}
        return {key: seen[key] for key in ("loss", "eval_loss") if key in seen}

    # --- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = self.job.folder / f"checkpoint-{self.state.global_step}"
        self.store_flos()
        whole_model = isinstance(self.job.tuner, WholeModelTuner)
        everywhere = self.job.saving.save_on_each_node
        with checkpoint.writing_together(final, on_each_machine=everywhere) as staged:
            if not staged.is_dir():
                raise _not_shared(staged.parent)
            with self.spread.whole(self, everything=whole_model):
                if self.args.should_save:
                    self.job.tuner.save(self._unwrapped, staged)
            if self.args.should_save:
                self.job.write_extras(staged)
                self._save_state(staged)
                if self.plan is not None:
                    self.plan.write(staged)
            if not self.args.save_only_model:
                if not self.spread.save_optimizer(self, staged):
                    self._save_optimizer_and_scheduler(str(staged))
                self._save_scaler(str(staged))
                self._save_rng_state(str(staged))  # every rank has its own
                if self.args.should_save and (state := self.job.tuner.training_state(self._unwrapped)):
                    save_file({name: tensor.contiguous() for name, tensor in state.items()}, staged / _TUNER_STATE)
        if self.args.should_save:
            best = self.best_checkpoint()  # before the limit may delete it
            checkpoint.prune(self.job.folder, self.job.saving.save_total_limit, best)
            if ranks.is_first():
                self.job.checkpoint_saved(final, best == final)

    def _save_state(self, folder: Path) -> None:
        parts = [part for part in (*self.callback_handler.callbacks, self.control) if isinstance(part, ExportableState)]
        self.state.stateful_callbacks.update({type(part).__name__: part.state() for part in parts})
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def best_checkpoint(self) -> Path | None:
        """Return the complete checkpoint with the best value (`job.best_metric`) at its step, else the newest."""
        name, higher_is_better = self.job.best_metric
        values = {line["step"]: line[name] for line in self.state.log_history if name in line}
        found = checkpoint.complete_checkpoints(self.job.folder)
        measured = [path for path in found if checkpoint.step_of(path) in values]
        if measured:
            best = max if higher_is_better else min
            return best(measured, key=lambda path: values[checkpoint.step_of(path)])
        return found[-1] if found else None

    def best_value(self) -> dict[str, float]:
        """Return {"best_eval_loss": ...}: the value that made `best_checkpoint` the best; nothing where none did."""
        name, best = self.job.best_metric[0], self.best_checkpoint() if self.args.should_save else None
        step = None if best is None else checkpoint.step_of(best)
        return {f"best_{name}": line[name] for line in self.state.log_history if name in line and line["step"] == step}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """A stream's iterator is made after this, and draws a number, which it has not done in the run that was saved.

        On another number of ranks there is no state to go on from: each draws numbers of its own from here on.
        """
        if isinstance(self.job.train_rows, Stream) and self._rng_of is None:
            self._rng_of = checkpoint
            return
        super()._load_rng_state(checkpoint)
        several = f"_{self.args.process_index}" if self.args.world_size > 1 else ""
        if checkpoint is not None and not (Path(checkpoint) / f"rng_state{several}.pth").is_file():
            set_seed((self.args.seed + self.args.process_index + 1000 * self.state.global_step) % 2**32)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The tuner has loaded the weights already."""


def _not_shared(folder: Path) -> OutputError:
    return OutputError(
        f"{folder} is not there on machine {platform.node()}, where a rank has its part of a checkpoint to write",
        fix="--save_on_each_node true, or an --output_dir that the machines share",
    )


def _as_it_is(model: Any, **kwargs: Any) -> Any:
    return model


def _inside_of_ddp(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def _seen_as_adapted(model: Any) -> Iterator[None]:
    """transformers refuses to train over a quantized model unless it knows the adapters; it knows peft's alone."""
    quantized = getattr(model, "is_quantized", False) and not hasattr(model, "peft_config")
    if quantized:
        model.is_quantized = False
    try:
        yield
    finally:
        if quantized:
            model.is_quantized = True


def steps_done(resumed: Path | None) -> int:
    """Return the optimizer steps that a checkpoint has behind it."""
    if resumed is None:
        return 0
    state = TrainerState.load_from_json(str(resumed / TRAINER_STATE_NAME))
    return int(state.global_step)
