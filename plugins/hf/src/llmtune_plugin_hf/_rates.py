"""Parameters that learn faster or slower than the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def learn_at_their_own_rates(optimizer: torch.optim.Optimizer, factors: Mapping[int, float]) -> None:
    """Split the groups of a fresh optimizer: `factors` are id(parameter) -> factor on the group's learning rate."""
    for group in list(optimizer.param_groups) if factors else ():
        for factor in sorted({factors[id(one)] for one in group["params"] if id(one) in factors}):
            mine = [one for one in group["params"] if factors.get(id(one)) == factor]
            group["params"] = [one for one in group["params"] if id(one) not in {id(other) for other in mine}]
            settings = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**settings, "params": mine, "lr": group["lr"] * factor})
