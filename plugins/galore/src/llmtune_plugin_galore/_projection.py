"""Projections of gradients to a low rank, and when they are made anew.

References: Zhao et al., GaLore (arXiv:2403.03507); Zhang et al., Q-GaLore (arXiv:2407.08296).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmtune_plugin_galore._few_bits import pack, unpack
from llmtune_plugin_galore.options import GaloreOptions

Bases = dict[str, Tensor]
"""Side -> orthonormal columns that span what the gradient (m, n) is projected to: left (m, rank), right (n, rank)."""


class Projection:
    """Keeps the bases of one parameter after the other in the optimizer's state of each."""

    def __init__(self, options: GaloreOptions) -> None:
        self.options = options

    def bases(self, gradient: Tensor, state: dict[str, Any]) -> Bases:
        """Return those that the state holds, made anew from `gradient` where it is time; `state["step"]` is from 0."""
        if "gap" not in state:
            state["gap"] = torch.tensor(self.options.galore_update_proj_gap)
            state["next_projection"] = torch.zeros_like(state["gap"])
            state["similarities"] = torch.empty(0)
        if state["step"] == state["next_projection"]:
            self._renew(gradient, state)
        return self._stored(gradient, state)

    def _renew(self, gradient: Tensor, state: dict[str, Any]) -> None:
        new = principal(gradient, self.options)
        if self.options.galore_quantization and state["step"] > 0:
            state["similarities"] = self._similarities(self._stored(gradient, state), new, state["similarities"])
            if self._is_steady(state["similarities"]):
                state["gap"] *= self.options.galore_gamma_proj
        state["next_projection"] = state["step"] + state["gap"]
        for side, basis in new.items():
            if self.options.galore_proj_quant:
                packed = pack(basis, self.options.galore_proj_bits, self.options.galore_proj_group_size)
                state[side], state[f"{side}_scale"], state[f"{side}_minimum"] = packed
            else:
                state[side] = basis

    def _stored(self, gradient: Tensor, state: dict[str, Any]) -> Bases:
        shapes = basis_shapes(gradient.shape, self.options)
        if not self.options.galore_proj_quant:
            return {side: state[side] for side in shapes}
        bits, group_size = self.options.galore_proj_bits, self.options.galore_proj_group_size
        packed = {side: (state[side], state[f"{side}_scale"], state[f"{side}_minimum"]) for side in shapes}
        return {side: unpack(*packed[side], bits, group_size, shapes[side]).to(gradient.dtype) for side in shapes}

    def _similarities(self, old: Bases, new: Bases, earlier: Tensor) -> Tensor:
        """Return the last few similarities of a projection with the one before: the mean |cosine| of its directions.

        The sign of a singular vector means nothing.
        """
        cosines = [torch.cosine_similarity(old[side], new[side], dim=0).abs() for side in new]
        latest = torch.cat(cosines).mean().to(earlier)
        return torch.cat([earlier, latest[None]])[-self.options.galore_queue_size :]

    def _is_steady(self, similarities: Tensor) -> bool:
        full = len(similarities) == self.options.galore_queue_size
        return full and similarities.mean().item() > self.options.galore_cos_threshold


def principal(gradient: Tensor, options: GaloreOptions) -> Bases:
    """Return the first singular vectors of a gradient, in its dtype."""
    precise = torch.promote_types(gradient.dtype, torch.float32)  # there is no SVD in half precision
    left, _, right = torch.linalg.svd(gradient.to(precise), full_matrices=False)
    vectors = {"left": left, "right": right.mT}
    shapes = basis_shapes(gradient.shape, options)
    return {side: vectors[side][:, :rank].to(gradient.dtype).contiguous() for side, (_, rank) in shapes.items()}


def basis_shapes(shape: torch.Size, options: GaloreOptions) -> dict[str, torch.Size]:
    """Return side -> shape of the basis, for a gradient of `shape` (m, n); the rank is m or n at most.

    std keeps the longer side of the gradient, reverse_std the shorter one; full projects on both sides.
    """
    shorter, longer = ("left", "right") if shape[0] < shape[1] else ("right", "left")
    chosen = {"std": [shorter], "reverse_std": [longer], "full": ["left", "right"]}
    sides = chosen.get(options.galore_proj_type, [options.galore_proj_type])
    rank = min(options.galore_rank, *shape)
    return {side: torch.Size([shape[0 if side == "left" else 1], rank]) for side in sides}


def project(gradient: Tensor, bases: Bases) -> Tensor:
    """Return the gradient (m, n) in the bases: (rank, n), (m, rank) or (rank, rank)."""
    if "left" in bases:
        gradient = bases["left"].mT @ gradient
    return gradient @ bases["right"] if "right" in bases else gradient


def project_back(update: Tensor, bases: Bases) -> Tensor:
    """Return the update (m, n) that an update in the bases stands for."""
    if "left" in bases:
        update = bases["left"].to(update.dtype) @ update
    return update @ bases["right"].to(update.dtype).mT if "right" in bases else update
