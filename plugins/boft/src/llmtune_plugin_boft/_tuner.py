"""BOFT through peft. Reference: Liu et al., BOFT (arXiv:2311.06243)."""

from __future__ import annotations

from typing import Any

from peft import BOFTConfig

from llmtune.api import PeftTuner, UsageError, layers_named
from llmtune_plugin_boft._blocks import use_plain_torch
from llmtune_plugin_boft.options import BoftOptions

use_plain_torch()


class BoftTuner(PeftTuner):
    """Multiplies weights by orthogonal butterfly matrices: m factors of in/b blocks (b, b), each the Cayley transform
    of a skew-symmetric matrix that starts at zero; and scales each output, from one.
    """

    method = "BOFT"
    options: BoftOptions

    def config(self, model: Any, **layers: Any) -> BOFTConfig:
        options = self.options
        for name, layer in layers_named(layers["target_modules"], model).items():
            self._check_width(name, getattr(layer, "in_features", None))
        return BOFTConfig(
            task_type="CAUSAL_LM",
            boft_block_size=0 if options.boft_block_num else options.boft_block_size,
            boft_block_num=options.boft_block_num,
            boft_n_butterfly_factor=options.boft_n_butterfly_factor,
            boft_dropout=options.boft_dropout,
            **layers,
        )

    def _check_width(self, name: str, width: int | None) -> None:
        """Raise `UsageError` where the blocks do not fill `width`, or are too few for the butterflies."""
        options = self.options
        if width is None:
            return
        flag = "boft_block_num" if options.boft_block_num else "boft_block_size"
        given = getattr(options, flag)
        if width % given:
            divisors = ", ".join(str(one) for one in range(2, 65) if width % one == 0)
            raise UsageError(
                f"--{flag} {given} does not divide the {width} inputs of {name}",
                fix=f"{width} can be cut by {divisors}",
            )
        blocks = given if options.boft_block_num else width // given
        needed = 2 ** (options.boft_n_butterfly_factor - 1)
        if needed > 1 and blocks % needed:
            raise UsageError(
                f"--boft_n_butterfly_factor {options.boft_n_butterfly_factor} needs a multiple of {needed} blocks, "
                f"{name} has {blocks}",
                fix="choose fewer factors, or a smaller --boft_block_size",
            )
