"""AdaLoRA through peft. Reference: Zhang et al., AdaLoRA (arXiv:2303.10512)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig

from llmtune.api import PeftTuner, RunContext, UsageError
from llmtune_plugin_adalora.options import AdaloraOptions

_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What the allocator of ranks remembers of each parameter: sensitivity, its mean, its uncertainty."""
_PATTERN = "rank_pattern"


class AdaloraTuner(PeftTuner):
    """Adds P diag(e) Q x to the target layers; e starts at zero, and the least important of its values are cut away
    step by step, over all layers together, until `adalora_target_r` remain on average.
    """

    method = "AdaLoRA"
    options: AdaloraOptions

    def __init__(self, options: AdaloraOptions, run: RunContext) -> None:
        super().__init__(options, run)
        first, last, steps = options.adalora_tinit, options.adalora_tfinal, run.steps
        needed = last + max(first + 1, 2)  # one step to reduce in, after one that has seen gradients
        if steps is not None and steps < needed:
            raise UsageError(
                f"--adalora_tinit {first} and --adalora_tfinal {last} leave none of the {steps} steps of this run to "
                "reduce ranks in",
                fix=f"lower them, or train for at least {needed} steps",
            )

    def config(self, model: Any, **layers: Any) -> AdaLoraConfig:
        options = self.options
        return AdaLoraConfig(
            task_type="CAUSAL_LM",
            target_r=options.adalora_target_r,
            init_r=options.adalora_init_r,
            tinit=options.adalora_tinit,
            tfinal=options.adalora_tfinal,
            deltaT=options.adalora_deltaT,
            beta1=options.adalora_beta1,
            beta2=options.adalora_beta2,
            orth_reg_weight=options.adalora_orth_reg_weight,
            # Only a training run has steps; elsewhere nothing is reduced.
            total_step=self.run.steps or options.adalora_tinit + options.adalora_tfinal + 1,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            **layers,
        )

    def prepare(self, model: Any) -> Any:
        prepared = super().prepare(model)
        for name, parameter in prepared.named_parameters():
            if "ranknum" in name:  # a constant, which peft moves to the device "meta" as a trained one
                parameter.requires_grad_(False)
        return prepared

    def save(self, model: Any, folder: Path) -> None:
        """Values that are cut away are stored as the zeros they are: without their places, peft would load adapters
        of other shapes, which a resumed run could not go on with.
        """
        config = model.peft_config["default"]
        pattern, config.rank_pattern = config.rank_pattern, None
        try:
            super().save(model, folder)
        finally:
            config.rank_pattern = pattern

    def after_step(self, model: Any, step: int) -> None:
        # Counted from one, as in the paper: after the last step the target is reached.
        model.base_model.update_and_allocate(step + 1)

    def penalty(self, model: Any) -> torch.Tensor:
        """Return the mean distance of P^T P and Q Q^T from the identity, times its weight (equation 4)."""
        products = [
            value @ value.T if "lora_A" in name else value.T @ value
            for name, value in model.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]
        distances = [torch.linalg.matrix_norm(one - torch.eye(len(one)).to(one)) for one in products]
        return self.options.adalora_orth_reg_weight * torch.stack(distances).mean()

    def training_state(self, model: Any) -> Mapping[str, torch.Tensor]:
        allocator, pattern = model.base_model.rankallocator, model.peft_config["default"].rank_pattern or {}
        state = {f"{kind}/{name}": value for kind in _IMPORTANCE for name, value in getattr(allocator, kind).items()}
        return state | {f"{_PATTERN}/{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def load_training_state(self, model: Any, state: Mapping[str, torch.Tensor]) -> None:
        by_kind: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in (*_IMPORTANCE, _PATTERN)}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            by_kind[kind][name] = value
        device = next(model.parameters()).device
        for kind in _IMPORTANCE:
            values = {name: value.to(device) for name, value in by_kind[kind].items()}
            setattr(model.base_model.rankallocator, kind, values)
        pattern = {name: kept.tolist() for name, kept in by_kind[_PATTERN].items()}
        model.peft_config["default"].rank_pattern = pattern or None
