"""transformers' Trainer with an exact loss, exact evaluation and checkpoints that are never half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerState

from llmtune.api import Encoded, Stream, TrainingJob, checkpoint
from llmtune_plugin_hf._batches import RankBatches, Rows, StreamBatches, leave_ctrl_c_to_the_loop, shuffled
from llmtune_plugin_hf._loss import summed_loss
from llmtune_plugin_hf._rates import learn_at_their_own_rates

_TUNER_STATE = "tuner_state.safetensors"


class Loop(Trainer):
    """One training run of one job."""

    # The loss is divided by the target tokens of the whole optimizer step already.
    loss_is_scaled_for_ga = True
    control: Any

    def __init__(self, job: TrainingJob, **kwargs: Any) -> None:
        with _seen_as_adapted(job.model):
            super().__init__(
                model=job.model,
                train_dataset=None if isinstance(job.train_rows, Stream) else Rows(job.train_rows),
                eval_dataset=Rows(job.eval_rows) if job.eval_rows else None,
                **kwargs,
            )
        self.job = job
        self.model_accepts_loss_kwargs = True  # makes the Trainer count the targets of a step
        self._unwrapped = self.accelerator.unwrap_model(self.model)
        has_base = hasattr(self._unwrapped, "get_base_model")
        self._base = self._unwrapped.get_base_model() if has_base else self._unwrapped

    # --- rows -------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Encoded]:
        rows = self.job.train_rows
        if isinstance(rows, Stream):
            return self._stream_loader(rows)

        def order() -> list[int]:
            epoch = int(self.state.epoch or 0)  # a resumed run starts inside of a later one
            return shuffled(len(rows), self.args.seed + epoch)

        return self._loader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            workers=self.args.dataloader_num_workers,
            order=order,
            drop_last=self.args.dataloader_drop_last,
        )

    def _stream_loader(self, stream: Stream) -> DataLoader[Encoded]:
        """A stream encodes in threads of its own and counts what it leaves out: it needs no worker process.

        It skips what was trained on before by itself, without reading it (`ignore_data_skip`).
        """
        batches = StreamBatches(
            stream,
            self.args.train_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            start=_steps_done(self.job.resume_from) * self.args.gradient_accumulation_steps,
        )
        return DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Encoded]:
        # A worker takes 0.3 s to start, at each evaluation; rows that are in memory need none.
        return self._loader(eval_dataset or self.eval_dataset, batch_size=self.args.eval_batch_size, workers=0)

    def _loader(self, rows: Any, *, workers: int, **batches: Any) -> DataLoader[Encoded]:
        """Not through Accelerate, which has no batches without repeated rows; the Trainer moves them to the device."""
        ranks = {"rank": self.args.process_index, "world_size": self.args.world_size}
        return DataLoader(
            rows,
            batch_sampler=RankBatches(len(rows), **ranks, **batches),
            collate_fn=self.data_collator,
            num_workers=workers,
            # The Trainer takes the batches of a whole step at once.
            prefetch_factor=max(2, self.args.gradient_accumulation_steps) if workers else None,
            worker_init_fn=leave_ctrl_c_to_the_loop,
            pin_memory=self.args.dataloader_pin_memory,
        )

    # --- the tuner's part ----------------------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        tuner, parameters = self.job.tuner, dict(self._unwrapped.named_parameters())
        self.optimizer: Any = self.optimizer or tuner.optimizer(self._unwrapped, self.job.optimizer)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        factors = tuner.learning_rates(self._unwrapped)
        learn_at_their_own_rates(optimizer, {id(parameters[name]): factor for name, factor in factors.items()})
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (path := Path(checkpoint) / _TUNER_STATE).is_file():
            self.job.tuner.load_training_state(self._unwrapped, load_file(path))

    # --- loss and evaluation ----------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        for reason, source in inputs.pop("problems", ()):
            if self.job.left_out is not None:
                self.job.left_out(reason, source)
        total, count = summed_loss(model, self._base, inputs)
        loss = total / (count if num_items_in_batch is None else num_items_in_batch)
        # Ranks' gradients are averaged: undo it, the sum over ranks is what the count belongs to.
        loss = loss * (self.accelerator.num_processes if num_items_in_batch is not None else 1)
        penalty = self.job.tuner.penalty(self._unwrapped)
        return loss if penalty is None else loss + penalty / self.current_gradient_accumulation_steps

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss per target token over the whole validation set of all ranks.

        Training goes on as if this had not been.
        """
        was_training = self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.random.fork_rng(
            devices=[self.args.device] if self.args.device.type == "cuda" else []
        ):  # each pass over a DataLoader draws a seed
            for batch in self.get_eval_dataloader(eval_dataset):
                total, count = summed_loss(self.model, self._base, self._prepare_inputs(batch))
                sums += torch.stack([total.double(), count.double()])
        total, count = self.accelerator.reduce(sums, "sum")
        self.model.train(was_training)
        metrics = {f"{metric_key_prefix}_loss": (total / count).item()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def last_metrics(self) -> dict[str, float]:
        """Return the last training and validation loss that were logged."""
        seen = {key: value for line in self.state.log_history for key, value in line.items()}
        return {key: seen[key] for key in ("loss", "eval_loss") if key in seen}

    # --- checkpoints ------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = self.job.folder / f"checkpoint-{self.state.global_step}"
        self.store_flos()
        with checkpoint.writing_together(final) as staged:
            if self.args.should_save:
                self.job.tuner.save(self._unwrapped, staged)
                self.job.write_extras(staged)
                self._save_state(staged)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(staged))
                self._save_scaler(str(staged))
                self._save_rng_state(str(staged))  # every rank has its own
                if self.args.should_save and (state := self.job.tuner.training_state(self._unwrapped)):
                    save_file({name: tensor.contiguous() for name, tensor in state.items()}, staged / _TUNER_STATE)
        if self.args.should_save:
            checkpoint.prune(self.job.folder, self.job.saving.save_total_limit, self.best_checkpoint())
            self.job.checkpoint_saved(final)

    def _save_state(self, folder: Path) -> None:
        parts = [part for part in (*self.callback_handler.callbacks, self.control) if isinstance(part, ExportableState)]
        self.state.stateful_callbacks.update({type(part).__name__: part.state() for part in parts})
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def best_checkpoint(self) -> Path | None:
        """Return the complete checkpoint with the lowest validation loss at its step, else the newest."""
        losses = {line["step"]: line["eval_loss"] for line in self.state.log_history if "eval_loss" in line}
        found = checkpoint.complete_checkpoints(self.job.folder)
        measured = [path for path in found if checkpoint.step_of(path) in losses]
        if measured:
            return min(measured, key=lambda path: losses[checkpoint.step_of(path)])
        return found[-1] if found else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The tuner has loaded the weights already."""


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


def _steps_done(resumed: Path | None) -> int:
    """Return the optimizer steps that a checkpoint has behind it."""
    if resumed is None:
        return 0
    state = TrainerState.load_from_json(str(resumed / TRAINER_STATE_NAME))
    return int(state.global_step)
