"""Load a native transformers model from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmtune.config.environment import local_rank
from llmtune.errors import UsageError
from llmtune.specs import LoadedModel, LoadOptions


def load_pretrained(folder: Path, options: LoadOptions, *, automodel_class: Any = None) -> LoadedModel:
    """Load tokenizer and, unless `options.weights` is False, weights of `options.dtype`.

    `options.kwargs` win over what is chosen here; `automodel_class` is used instead of
    `AutoModelForCausalLM`. Only safetensors are read: pickled weights can run code.
    """
    from transformers import AutoTokenizer

    trust = {"trust_remote_code": options.trust_remote_code}
    _check_folder(folder, options)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = _weights(folder, options, automodel_class) if options.weights else None
    return LoadedModel(model=model, tokenizer=tokenizer)


def _weights(folder: Path, options: LoadOptions, automodel_class: Any = None) -> Any:
    from transformers import AutoModelForCausalLM

    chosen = {
        "dtype": options.torch_dtype,
        "attn_implementation": _attention(options.use_flash_attn),
        "device_map": _device_map(),
        **options.kwargs,
        "use_safetensors": True,
        "trust_remote_code": options.trust_remote_code,
    }
    return (automodel_class or AutoModelForCausalLM).from_pretrained(folder, **chosen)


def _device_map() -> dict[str, str] | None:
    """This process's own GPU; None leaves the model on the CPU."""
    import torch

    return {"": f"cuda:{local_rank()}"} if torch.cuda.is_available() else None


def _attention(use_flash_attn: bool | None) -> str:
    return {None: "sdpa", True: "flash_attention_2", False: "eager"}[use_flash_attn]


def _check_folder(folder: Path, options: LoadOptions) -> None:
    import json

    config = folder / "config.json"
    if not config.is_file():
        raise UsageError(
            f"{folder} holds no model (config.json is missing)", fix="check the folder, or download it again"
        )
    if "auto_map" in json.loads(config.read_text(encoding="utf-8")) and not options.trust_remote_code:
        from transformers import AutoConfig

        try:
            AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except ValueError as error:
            raise UsageError(
                f"the model in {folder} comes with its own Python code, which llmtune does not run by itself",
                fix="read the code, then add --trust_remote_code true; or choose a model with a native class",
            ) from error
