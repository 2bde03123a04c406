"""FourierFT through peft. Reference: Gao et al., FourierFT (arXiv:2405.03003)."""

from __future__ import annotations

from typing import Any

from peft import FourierFTConfig

from llmtune.api import PeftTuner, UsageError, layers_named
from llmtune_plugin_fourierft.options import FourierftOptions


class FourierftTuner(PeftTuner):
    """Adds an update whose spectrum has n learned coefficients, at places that all layers of a shape share.

    The coefficients start from normal numbers, as in the paper, so a fresh model does not answer as the base does.
    """

    method = "FourierFT"
    options: FourierftOptions

    def config(self, model: Any, **layers: Any) -> FourierFTConfig:
        count = self.options.fourier_n_frequency
        for name, layer in layers_named(layers["target_modules"], model).items():
            size = getattr(layer, "in_features", count) * getattr(layer, "out_features", count)
            if count > size:
                raise UsageError(
                    f"--fourier_n_frequency {count} is more than the {size} frequencies of {name}",
                    fix=f"choose at most {size}",
                )
        return FourierFTConfig(task_type="CAUSAL_LM", n_frequency=count, scaling=self.options.fourier_scaling, **layers)
