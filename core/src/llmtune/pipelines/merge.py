"""Merging an adapter into its base model: a whole model beside the checkpoint."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import Tuner
from llmtune.model.same_answers import check_same_answers, probe_logits
from llmtune.pipelines.prepare import Prepared, find_model, load_model, make_quantizer, prepare
from llmtune.pipelines.trained import checkpoint_folder, is_whole, trained_template
from llmtune.specs import LoadedModel
from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import ARGUMENTS, CheckpointFiles, read_arguments

if TYPE_CHECKING:
    from llmtune.config.commands import InferConfig
    from llmtune.plugins.catalogue import Catalogue

_WHOLE = {"sft_type": "full", "merge_lora": False, "quantization_bit": 0, "quant_method": None}
"""What the arguments of a merged model say."""


def merge_lora(config: InferConfig, catalogue: Catalogue) -> Path:
    """Write `<ckpt_dir>-merged` and return it."""
    final = merged_folder(config)
    merged(prepare("merge-lora", config, catalogue))
    return final


def merged_folder(config: InferConfig) -> Path:
    """Return where the merged model belongs."""
    folder = _adapter_folder(config)
    return folder.with_name(f"{folder.name}-merged")


def _adapter_folder(config: InferConfig) -> Path:
    folder = checkpoint_folder(config)
    if folder is None:
        raise UsageError("there is no adapter to merge", fix="add --ckpt_dir CHECKPOINT")
    return folder


def merged(prepared: Prepared[Any]) -> LoadedModel:
    """Merge, write the whole model, and return it loaded."""
    config = prepared.config
    folder, final = _adapter_folder(config), merged_folder(config)
    loaded = load_merged(prepared)
    spec, template = trained_template(prepared, loaded.tokenizer)
    own = (folder / ARGUMENTS).is_file() and not checkpoint.is_foreign(folder)
    trained_with = read_arguments(folder) if own else {}
    arguments = {**trained_with, **config.model.model_dump(mode="json"), **_WHOLE}
    files = CheckpointFiles(arguments, spec, template, loaded.tokenizer, config.generation)
    with checkpoint.writing(final) as staged:
        loaded.model.save_pretrained(staged)
        files.write(staged)
        _read_again(loaded, staged)
    prepared.run.say(f"merged model: {final}\ntry it: llmtune infer --ckpt_dir {final}")
    return loaded


def load_merged(prepared: Prepared[Any]) -> LoadedModel:
    """Load the base model with the adapter of the checkpoint merged into it."""
    config = prepared.config
    folder = _adapter_folder(config)
    if is_whole(prepared):
        raise UsageError(f"{folder} holds a whole model, there is no adapter to merge")
    loaded = load_model(prepared, find_model(prepared), weights=True)
    loaded.model = _unquantized(prepared, loaded.model)
    tuner: Tuner = prepared.provide("llmtune_create_tuner", "tuner")
    adapted = tuner.load(loaded.model, folder)
    expected = probe_logits(adapted)
    loaded.model = tuner.merge(adapted)
    check_same_answers(expected, probe_logits(loaded.model), loaded.model.dtype, f"merging {folder}")
    return loaded


def _read_again(loaded: LoadedModel, folder: Path) -> None:
    """Take the model as it was written: what its files lost or tied is found before it is called done."""
    expected, kind = probe_logits(loaded.model), type(loaded.model)
    dtype, device = loaded.model.dtype, loaded.model.device
    placed = {"device_map": loaded.model.hf_device_map} if hasattr(loaded.model, "hf_device_map") else {}
    loaded.model = None  # memory holds one of them at a time
    loaded.model = kind.from_pretrained(folder, dtype=dtype, **placed)
    loaded.model = loaded.model if placed else loaded.model.to(device)
    check_same_answers(expected, probe_logits(loaded.model), dtype, f"writing {folder.name}")


def _unquantized(prepared: Prepared[Any], model: Any) -> Any:
    """Return a model whose weights can take an adapter; rounding those again to few bits would lose most of it."""
    quantizer = make_quantizer(prepared)
    if quantizer is not None:
        bits = prepared.config.quantization.quantization_bit
        print(
            f"warning: the adapter was trained over a base in {bits} bits; it is merged into what these stand for, in "
            f"{prepared.config.model.dtype}: larger, but it answers as trained. --quantization_bit 0 merges into the "
            "base as it was published",
            file=sys.stderr,
        )
        # Of a copy: on CPUs bitsandbytes repacks weights when it first answers, and does not unpack those again.
        expected = probe_logits(copy.deepcopy(model))
        plain = quantizer.dequantize(model)
        check_same_answers(expected, probe_logits(plain), "bfloat16", f"unpacking the base in {bits} bits")
        return plain
    method = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    if method is not None:
        raise UsageError(
            f"the base model was published quantized ({getattr(method, 'value', method)}), and its packed weights "
            "cannot take an adapter",
            fix="answer with the checkpoint itself: llmtune infer --ckpt_dir; or train over the unquantized model",
        )
    return model
