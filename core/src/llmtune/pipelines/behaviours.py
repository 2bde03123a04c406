"""Which tuner, trainer, engine and quantizer a configuration names."""

from __future__ import annotations

from typing import Any

from llmtune.config.commands import CommandConfig
from llmtune.config.section import extra
from llmtune.errors import UnknownName, UsageError
from llmtune.plugins.catalogue import Catalogue, Entry

_FLAGS = {"tuner": "sft_type", "trainer": "train_backend", "engine": "infer_backend", "quantizer": "quant_method"}
"""Kind -> the flag that names one."""


def behaviours(config: CommandConfig, catalogue: Catalogue) -> dict[str, str]:
    """Return kind -> name; a kind that the run does not use is absent."""
    names: dict[str, str | None] = {kind: config.get(flag) for kind, flag in _FLAGS.items()}
    if "inference" in type(config).model_fields:
        names["engine"] = engine_name(config, catalogue)
        names["tuner"] = names["tuner"] if config.get("ckpt_dir") else None
    names["quantizer"] = (names["quantizer"] or "bnb") if config.get("quantization_bit") else None
    return {kind: name for kind, name in names.items() if name is not None}


def unused_names(config: CommandConfig, catalogue: Catalogue) -> dict[str, str]:
    """Return kind -> name for what the user named and the run does not use; it must exist all the same."""
    used = behaviours(config, catalogue)
    named = {kind: config.get(flag) for kind, flag in _FLAGS.items() if config.given(flag) and kind not in used}
    return {kind: name for kind, name in named.items() if name is not None and name not in _pending(kind, config)}


def engine_name(config: Any, catalogue: Catalogue) -> str:
    """SWIFT's rule for AUTO: vllm for whole models where it is installed, else native torch (pt)."""
    section = config.inference
    if section.infer_backend != "AUTO":
        return str(section.infer_backend)
    whole = section.ckpt_dir is None or section.sft_type == "full"
    return "vllm" if whole and catalogue.get("engine", "vllm") else "pt"


def find_behaviour(kind: str, name: str, config: CommandConfig, catalogue: Catalogue) -> Entry:
    """Return the entry of a behaviour; names that SWIFT has and llmtune not yet are told apart from mistakes."""
    flag = _FLAGS[kind]
    if name in _pending(kind, config) and catalogue.get(kind, name) is None:
        raise UsageError(f"--{flag} {name} is not available yet", fix=f"llmtune {kind}s lists what is")
    try:
        return catalogue.find(kind, name)
    except UnknownName as error:
        error.problem = f"--{flag}: {error.problem}"
        raise


def _pending(kind: str, config: CommandConfig) -> list[str]:
    flag = _FLAGS[kind]
    section = getattr(config, config.section_of(flag))
    return list(extra(type(section), flag).get("x-pending-names", ()))
