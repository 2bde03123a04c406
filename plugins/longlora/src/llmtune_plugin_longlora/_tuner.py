"""LoRA for long texts. Reference: Chen et al., LongLoRA (arXiv:2309.12307)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig

from llmtune.api import PeftTuner
from llmtune_plugin_longlora._attention import attend_fully, attend_in_groups
from llmtune_plugin_longlora.options import LongloraOptions


class LongloraTuner(PeftTuner):
    """Trains LoRA, embeddings and norms with attention in groups; the trained model attends fully.

    What it stores is a LoRA adapter of peft.
    """

    method = "LoRA"
    options: LongloraOptions

    def config(self, model: Any, **layers: Any) -> LoraConfig:
        options = self.options
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            **layers,
        )

    def prepare(self, model: Any) -> Any:
        attend_in_groups(model, self.options.longlora_group_size)
        return super().prepare(model)

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        if trainable:
            attend_in_groups(model, self.options.longlora_group_size)
        return super().load(model, folder, trainable=trainable)

    def merge(self, model: Any) -> Any:
        merged = super().merge(model)
        attend_fully(merged)
        return merged
