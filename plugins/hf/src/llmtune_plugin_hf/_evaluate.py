"""The loss per target token over the whole validation set of all ranks, and the share of right predictions."""

from __future__ import annotations

from typing import Any, Literal

import torch

from llmtune.api import deal, ranks
from llmtune_plugin_hf._collate import targets
from llmtune_plugin_hf._passes import Passes
from llmtune_plugin_hf._steps import Rows


@torch.no_grad()
def evaluated(
    passes: Passes, model: Any, rows: Rows, *, rows_at_once: int, measure: Literal["token", "sentence"]
) -> dict[str, float]:
    """Return `loss` and `acc`; `rows_at_once` rows are read at a time, of which each rank has its share."""
    assert passes.cut is not None
    parallel = passes.forward.parallel
    sums = torch.zeros(3, dtype=torch.float64, device=passes.forward.device)  # losses, right predictions, predictions
    all_targets = 0
    for start in range(0, len(rows), rows_at_once):
        together = rows.__getitems__(range(start, min(start + rows_at_once, len(rows))))
        all_targets += sum(map(targets, together.rows))
        share = [together.rows[place] for place in deal(together.lengths, parallel.readers)[parallel.reader]]
        parts = passes.cut.cut([len(row["input_ids"]) for row in share])
        for number in range(ranks.largest(len(parts))):  # one that shards the model waits for the others
            batch = passes.collate([share[place] for place in parts[number]] if number < len(parts) else [])
            with passes.forward.samples_of(batch):
                loss, right = passes.forward.loss(model, batch, measure)
            assert right is not None
            sums += torch.cat([loss.double()[None], right])
    total, hits, counted = ranks.total(sums.tolist())
    return {"loss": total / max(all_targets, 1), "acc": hits / max(counted, 1)}
