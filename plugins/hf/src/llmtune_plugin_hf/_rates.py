"""The learning rate of each parameter at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.optim.lr_scheduler import LambdaLR


def learn_at_their_own_rates(optimizer: torch.optim.Optimizer, factors: Mapping[int, float]) -> None:
    """Split the groups of a fresh optimizer: `factors` are id(parameter) -> factor on the group's learning rate."""
    for group in list(optimizer.param_groups) if factors else ():
        for factor in sorted({factors[id(one)] for one in group["params"] if id(one) in factors}):
            mine = [one for one in group["params"] if factors.get(id(one)) == factor]
            group["params"] = [one for one in group["params"] if id(one) not in {id(other) for other in mine}]
            settings = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**settings, "params": mine, "lr": group["lr"] * factor})


def warm_up_above_zero(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int, total: int) -> None:
    """Let step k of `steps` that warm up have k/`steps` of the rate; the first one would have 0 and learn nothing.

    What comes after the warm-up stays, up to step `total`: transformers' schedules give step k what is above 0 there.
    """
    if not isinstance(scheduler, LambdaLR) or not steps:
        return
    scheduler.lr_lambdas = [_shifted(given, steps, total) for given in scheduler.lr_lambdas]
    first = [base * factor(0) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, first, strict=True):
        group["lr"] = rate
    scheduler._last_lr = first


def _shifted(given: Callable[[int], float], steps: int, total: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step + 1 == steps or total <= steps <= step:
            return 1.0  # where nothing follows the warm-up, `given` has ended
        return given(step + 1 if step < steps else step)

    return factor
