"""Which tuner, trainer, engine and quantizer a configuration names."""

from __future__ import annotations

from typing import Any

from llmtune.config.commands import CommandConfig
from llmtune.config.section import extra
from llmtune.errors import UsageError
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
    section = getattr(config, config.section_of(flag))
    if name in extra(type(section), flag).get("x-pending-names", ()) and catalogue.get(kind, name) is None:
        raise UsageError(f"--{flag} {name} is not available yet", fix=f"llmtune {kind}s lists what is")
    return catalogue.find(kind, name)
