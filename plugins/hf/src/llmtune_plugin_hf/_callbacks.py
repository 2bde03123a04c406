"""Callbacks of the loop: progress, polite stops, llmtune's own callbacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from llmtune.api import Callback, StopRequest, Tuner
from llmtune_plugin_hf._speed import Speed

_SHOWN = ("loss", "acc", "learning_rate")


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
    """A progress bar with the current loss and speed, and a line for each evaluation; lines alone without a bar."""

    def __init__(self, speed: Speed, *, show: bool) -> None:
        self.speed, self.show = speed, show
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
        shown = {
            name: f"{value:.4g}" for name, value in (logs or {}).items() if name in _SHOWN or name.startswith("eval_")
        }
        if self.bar is None or not shown:
            return
        evaluated = any(name.startswith("eval_") for name in shown)
        if not evaluated:
            shown |= self.speed.shown(state.max_steps - state.global_step)
        if self.show and not evaluated:
            self.bar.set_postfix({name: text for name, text in shown.items() if name != "left"})  # it says so itself
        else:
            tqdm.write(f"step {state.global_step}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class StopWithoutProgress(TrainerCallback):
    """Stops after the evaluation that is the `patience`th in a row without a better value (--early_stop_interval)."""

    def __init__(self, patience: int, metric: tuple[str, bool]) -> None:
        self.patience, (self.metric, self.higher_is_better) = patience, metric

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        values = [line[self.metric] for line in state.log_history if self.metric in line]
        best = values.index(max(values) if self.higher_is_better else min(values))
        if len(values) - 1 - best >= self.patience:
            control.should_save = control.should_training_stop = True
            if state.is_world_process_zero:
                print(
                    f"stopping: {self.metric} was {values[best]:.4g} {self.patience} evaluations ago, and never better"
                )


class Forward(TrainerCallback):
    """Hands logged values to the callbacks that plugins brought."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        values = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if state.is_world_process_zero and "train_runtime" not in values:
            for callback in self.callbacks:
                callback.on_log(state.global_step, values)
