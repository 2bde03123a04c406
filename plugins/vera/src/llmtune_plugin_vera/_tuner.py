"""VeRA through peft. Reference: Kopiczko et al., VeRA (arXiv:2310.11454)."""

from __future__ import annotations

from typing import Any

from peft import VeraConfig

from llmtune.api import PeftTuner
from llmtune_plugin_vera.options import VeraOptions


class VeraTuner(PeftTuner):
    """Adds b * (B (d * (A x))) to the target layers: random A and B are shared and frozen, vectors b and d trained.

    b (out) starts at zero, d (rank) at --vera_d_initial. A checkpoint holds A and B too: random numbers of one seed
    may differ between releases of torch.
    """

    method = "VeRA"
    options: VeraOptions

    def config(self, model: Any, **layers: Any) -> VeraConfig:
        options = self.options
        return VeraConfig(
            task_type="CAUSAL_LM",
            r=options.vera_rank,
            projection_prng_key=options.vera_projection_prng_key,
            vera_dropout=options.vera_dropout,
            d_initial=options.vera_d_initial,
            **layers,
        )
