"""(IA)3 through peft. Reference: Liu et al., T-Few (arXiv:2205.05638)."""

from __future__ import annotations

from typing import Any

from peft import IA3Config

from llmtune.api import PeftTuner, UsageError
from llmtune_plugin_ia3.options import Ia3Options


class Ia3Tuner(PeftTuner):
    """Scales what the target layers give by a learned vector (out), and what --ia3_feedforward_modules take by one
    (in); all start at one.
    """

    method = "IA3"
    options: Ia3Options

    def config(self, model: Any, **layers: Any) -> IA3Config:
        feedforward, targets = self.options.ia3_feedforward_modules, layers["target_modules"]
        outside = sorted(set(feedforward) - set(targets)) if isinstance(targets, list) else []
        if outside:
            raise UsageError(
                f"--ia3_feedforward_modules {' '.join(outside)} is not among --target_modules {' '.join(targets)}",
                fix=f"add it there: --target_modules {' '.join([*targets, *outside])}",
            )
        return IA3Config(task_type="CAUSAL_LM", feedforward_modules=feedforward, **layers)
