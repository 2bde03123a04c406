"""Callbacks of the loop: progress, polite stops, llmtune's own callbacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from llmtune.api import Callback, StopRequest, Tuner


class StopWhenAsked(TrainerCallback):
    """Saves and stops after the step in which the user pressed Ctrl-C, on every rank."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.request.agreed():
            control.should_save = True
            control.should_training_stop = True


class TunerSteps(TrainerCallback):
    """Tells the tuner about each step: some change what is trained as they go."""

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tuner.before_step(kwargs["model"], kwargs["optimizer"], state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tuner.after_step(kwargs["model"], state.global_step)


class Progress(TrainerCallback):
    """A progress bar with the current loss, and a line for each evaluation."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                disable=not self.show,
                file=sys.stderr,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        shown = {name: f"{logs[name]:.4g}" for name in ("loss", "learning_rate", "eval_loss") if name in (logs or {})}
        if self.bar is None or not shown:
            return
        if self.show and "eval_loss" not in shown:
            self.bar.set_postfix(shown)
        else:
            tqdm.write(f"step {state.global_step}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class Forward(TrainerCallback):
    """Hands logged values to the callbacks that plugins brought."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        values = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if state.is_world_process_zero and "train_runtime" not in values:
            for callback in self.callbacks:
                callback.on_log(state.global_step, values)
