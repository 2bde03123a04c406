"""LoRA through peft. Reference: Hu et al., LoRA (arXiv:2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from llmtune.api import CheckpointError, RunContext, Tuner
from llmtune_plugin_lora._precision import keep_whole_layers_in_fp32
from llmtune_plugin_lora._targets import modules_to_save, target_modules
from llmtune_plugin_lora.options import LoraOptions

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class LoraTuner(Tuner):
    """Adds W x + (alpha / rank) B A x to the target layers; A (rank, in) random, B (out, rank) zero."""

    def __init__(self, options: LoraOptions, run: RunContext) -> None:
        self.options, self.run = options, run

    def prepare(self, model: Any) -> Any:
        adapted = get_peft_model(model, self._config(model))
        if self.options.lora_dtype != "AUTO":
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.data = parameter.data.to(_DTYPES[self.options.lora_dtype])
        return keep_whole_layers_in_fp32(adapted)

    def _config(self, model: Any) -> LoraConfig:
        options = self.options
        init = {"true": True, "false": False}.get(options.init_lora_weights, options.init_lora_weights)
        family = self.run.plan.target_modules
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=options.target_regex or target_modules(options.target_modules, family, model),
            modules_to_save=modules_to_save(options.modules_to_save, model) or None,
            init_lora_weights=init,
            bias=options.lora_bias_trainable,
            use_rslora=options.use_rslora,
            use_dora=options.use_dora,
        )

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        if not (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{folder} holds no LoRA adapter (adapter_config.json is missing)", fix="check --sft_type"
            )
        return keep_whole_layers_in_fp32(PeftModel.from_pretrained(model, folder, is_trainable=trainable))

    def merge(self, model: Any) -> Any:
        return model.merge_and_unload()
