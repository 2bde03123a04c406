"""LoRA through peft. Reference: Hu et al., LoRA (arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig

from llmtune.api import CheckpointError, PeftTuner, UsageError
from llmtune_plugin_lora._fused import fuse
from llmtune_plugin_lora._swift_format import in_peft_form, peft_settings, swift_adapter, write_peft_form
from llmtune_plugin_lora.options import LoraOptions


class LoraTuner(PeftTuner):
    """Adds W x + (alpha / rank) B A x to the target layers; A (rank, in) random, B (out, rank) zero."""

    method = "LoRA"
    options: LoraOptions

    def config(self, model: Any, **layers: Any) -> LoraConfig:
        options = self.options
        init: Any = {"true": True, "false": False}.get(options.init_lora_weights, options.init_lora_weights)
        if next(model.parameters()).is_meta:  # PiSSA would decompose weights that are not there
            init = True
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            init_lora_weights=init,
            bias=options.lora_bias_trainable,
            use_rslora=options.use_rslora,
            use_dora=options.use_dora,
            **layers,
        )

    def with_precision(self, model: Any) -> Any:
        return fuse(super().with_precision(model))

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        with in_peft_form(folder) as adapter:
            return super().load(model, adapter, trainable=trainable)

    def add(self, model: Any, folder: Path, name: str) -> Any:
        with in_peft_form(folder) as adapter:
            self.check_folder(adapter)
            if "pissa" in [one.init_lora_weights for one in (*model.peft_config.values(), _stored_config(adapter))]:
                raise NotImplementedError("PiSSA takes what its adapter starts with out of the base, for all adapters")
            return super().add(model, adapter, name)

    def check_folder(self, folder: Path) -> None:
        adapter = swift_adapter(folder)
        if adapter is None:
            super().check_folder(folder)
        else:
            self.check_settings(peft_settings(adapter), adapter)

    def to_peft(self, folder: Path, target: Path) -> None:
        self.check_folder(folder)
        adapter = swift_adapter(folder)
        if adapter is None:
            raise UsageError(f"the adapter in {folder} is in peft's form already", fix="use it as it is")
        write_peft_form(adapter, target)

    def check_settings(self, settings: dict[str, Any], folder: Path) -> None:
        """peft draws the base that a pissa_niter adapter belongs to anew: other weights than trained."""
        super().check_settings(settings, folder)
        if str(settings.get("init_lora_weights")).startswith("pissa_niter"):
            raise CheckpointError(
                f"{folder} was started with init_lora_weights {settings['init_lora_weights']}, which cannot be "
                "repeated",
                fix="convert it to a plain LoRA where it was trained (peft: path_initial_model_for_weight_conversion)",
            )

    def learning_rates(self, model: Any) -> Mapping[str, float]:
        """LoRA+: B, which starts at zero, learns faster than A (Hayou et al., arXiv:2402.12354)."""
        ratio = self.options.lora_lr_ratio
        faster = (name for name, _ in model.named_parameters() if "lora_B" in name or "lora_embedding_B" in name)
        return {} if ratio is None else dict.fromkeys(faster, ratio)


def _stored_config(adapter: Path) -> LoraConfig:
    config: LoraConfig = LoraConfig.from_pretrained(str(adapter))
    return config
