"""AdamW whose gradients are projected to a low rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmtune_plugin_galore._moments import Moments
from llmtune_plugin_galore._projection import Projection, project, project_back


class GaloreAdamW(torch.optim.Optimizer):
    """AdamW; in groups with `projected`, moments are those of the projected gradient (arXiv:2403.03507, Algorithm 2).

    All state is tensors: counts on the CPU, the rest beside its parameter.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], projection: Projection, moments: Moments, **defaults: Any):
        """Take groups as torch's AdamW does, with `lr`, `betas`, `eps`, `weight_decay`, `projected` and `scale`."""
        super().__init__(groups, defaults)
        self.projection = projection
        self.moments = moments

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def update_in_backward(self) -> None:
        """From now on, update each parameter as soon as its gradient is known, and free that; `step` finds none."""
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(partial(self._update_at_once, number))

    @torch.no_grad()
    def _update_at_once(self, number: int, parameter: Tensor) -> None:
        self._update(parameter, self.param_groups[number])  # loading a state replaces the groups
        parameter.grad = None

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        state.setdefault("step", torch.tensor(0))
        bases = self.projection.bases(gradient, state) if group["projected"] else {}
        gradient = project(gradient, bases)
        state["step"] += 1

        first_decay, second_decay = group["betas"]
        first = self.moments.read(state, "exp_avg", gradient)
        second = self.moments.read(state, "exp_avg_sq", gradient)
        gradient = gradient.to(first.dtype)
        first.lerp_(gradient, 1 - first_decay)
        second.mul_(second_decay).addcmul_(gradient, gradient, value=1 - second_decay)
        self.moments.write(state, "exp_avg", first)
        self.moments.write(state, "exp_avg_sq", second)

        first_bias, second_bias = (1 - decay ** state["step"].item() for decay in group["betas"])
        update = first / (second.sqrt() / second_bias**0.5 + group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(project_back(update, bases), alpha=-group["lr"] * group["scale"] / first_bias)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state as it was saved: torch's own would cast packed codes to the dtype of their parameter."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = parameters[number]
            self.state[parameter] = {
                key: value.to(parameter.device if value.ndim else "cpu", copy=True) for key, value in saved.items()
            }
