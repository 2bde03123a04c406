"""Whether training changed anything."""

from __future__ import annotations

from typing import Any

import torch

from llmtune.api import ranks


class Trained:
    """The trainable values of this rank, as one number per parameter.

    DeepSpeed and FSDP lay the parameters out anew at the start, which counts as a change.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.before = _fingerprint(model)

    def has_changed(self) -> bool:
        """Return whether any rank's values are others than at the beginning."""
        now = _fingerprint(self.model)
        same = now.shape == self.before.shape and bool(torch.equal(now, self.before))
        return bool(ranks.total([0 if same else 1])[0])


@torch.no_grad()
def _fingerprint(model: Any) -> torch.Tensor:
    """Two sums (float64) per parameter in one number; updates of all parameters would have to cancel to leave them."""
    found = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            own = getattr(parameter, "ds_tensor", parameter)  # DeepSpeed's part of this rank
            own = own.to_local() if hasattr(own, "to_local") else own.detach()  # FSDP's
            found.append(own.abs().sum(dtype=torch.float64).cpu() + 2 * own.sum(dtype=torch.float64).cpu())
    return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)
