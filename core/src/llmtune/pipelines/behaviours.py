"""Which tuner, trainer, engine, quantizer and metric a configuration names."""

from __future__ import annotations

from typing import Any

from llmtune.config.build import is_asked_for
from llmtune.config.commands import CommandConfig
from llmtune.config.section import extra
from llmtune.errors import Problems, UnknownName, UsageError
from llmtune.plugins.catalogue import Catalogue, Entry

_FLAGS = {
    "tuner": "sft_type",
    "trainer": "train_backend",
    "engine": "infer_backend",
    "quantizer": "quant_method",
    "metric": "metric",
}
"""Kind -> the flag that names one."""


_VARIANTS = {
    "qlora": "--sft_type lora --quantization_bit 4",
    "dora": "--sft_type lora --use_dora true",
    "qdora": "--sft_type lora --use_dora true --quantization_bit 4",
    "rslora": "--sft_type lora --use_rslora true",
    "pissa": "--sft_type lora --init_lora_weights pissa",
    "lora+": "--sft_type lora --lora_lr_ratio 16",
    "loraplus": "--sft_type lora --lora_lr_ratio 16",
    "qgalore": "--sft_type full --use_galore true --galore_quantization true",
    "freeze": "--sft_type full --freeze_parameters 0.9",
}
"""What other programs call a tuner of its own -> the flags that say it here; the nearest name would mislead."""


def find_behaviours(
    config: CommandConfig, catalogue: Catalogue, problems: Problems
) -> tuple[dict[str, Entry], list[Entry]]:
    """Return kind -> the entry that the run uses, and its extensions; what is wrong is added to `problems`.

    What the user named and the run does not use must exist all the same.
    """
    used = problems.collect(_behaviours, config, catalogue) or {}
    found = {kind: problems.collect(_find, kind, name, config, catalogue) for kind, name in used.items()}
    for kind, flag in _FLAGS.items():
        name = config.get(flag) if config.given(flag) and kind not in used else None
        if name is not None and name not in _pending(kind, config):
            problems.collect(_find, kind, name, config, catalogue)
    extending = problems.collect(_extensions, config, catalogue) or []
    return {kind: entry for kind, entry in found.items() if entry is not None}, extending


def _behaviours(config: CommandConfig, catalogue: Catalogue) -> dict[str, str]:
    """Return kind -> name; a kind that the run does not use is absent."""
    names: dict[str, str | None] = {kind: config.get(flag) for kind, flag in _FLAGS.items()}
    if "inference" in type(config).model_fields:
        names["engine"] = engine_name(config, catalogue)
        names["tuner"] = names["tuner"] if config.get("ckpt_dir") else None
    if "training" in type(config).model_fields:
        names["tuner"] = _tuner_name(config, catalogue)
    if not config.get("predict_with_generate"):
        names["metric"] = None
    elif names["engine"] is None:
        names["engine"] = "pt"  # no other engine takes a model that is being trained
    names["quantizer"] = (names["quantizer"] or "bnb") if config.get("quantization_bit") else None
    return {kind: name for kind, name in names.items() if name is not None}


def _tuner_name(config: CommandConfig, catalogue: Catalogue) -> str:
    """Return --sft_type, or the tuner that takes its place where a flag asks for that one (`--use_galore`)."""
    named = str(config.get("sft_type"))
    asked = [entry for entry in catalogue.entries("tuner") if is_asked_for(config, entry)]
    for entry in asked:
        if named not in (entry.facts["instead_of"], entry.name):
            flag, instead_of = entry.facts["when"], entry.facts["instead_of"]
            raise UsageError(f"--{flag} works with --sft_type {instead_of} only, found --sft_type {named}")
    if len(asked) > 1:
        raise UsageError(f"{' and '.join('--' + entry.facts['when'] for entry in asked)} exclude each other")
    return asked[0].name if asked else named


def _extensions(config: CommandConfig, catalogue: Catalogue) -> list[Entry]:
    """Return the extensions that a flag asks for."""
    if "training" not in type(config).model_fields:
        return []
    return [entry for entry in catalogue.entries("extension") if is_asked_for(config, entry)]


def switches(catalogue: Catalogue) -> list[str]:
    """Return the flags that turn a tuner or an extension on (`use_galore`, `neftune_noise_alpha` ...)."""
    entries = [entry for kind in ("tuner", "extension") for entry in catalogue.entries(kind)]
    return [entry.facts["when"] for entry in entries if "when" in entry.facts]


def engine_name(config: Any, catalogue: Catalogue) -> str:
    """SWIFT's rule for AUTO: vllm for whole models where it is installed, else native torch (pt)."""
    section = config.inference
    if section.infer_backend != "AUTO":
        return str(section.infer_backend)
    whole = section.ckpt_dir is None or section.sft_type == "full"
    return "vllm" if whole and catalogue.get("engine", "vllm") else "pt"


def _find(kind: str, name: str, config: CommandConfig, catalogue: Catalogue) -> Entry:
    """Return the entry of a behaviour; names that SWIFT has and llmtune not yet are told apart from mistakes."""
    flag = _FLAGS[kind] if _has_flag(kind, config) else "predict_with_generate"
    if name in _pending(kind, config) and catalogue.get(kind, name) is None:
        raise UsageError(f"--{flag} {name} is not available yet", fix=f"llmtune {kind}s lists what is")
    try:
        return catalogue.find(kind, name)
    except UnknownName as error:
        error.problem = f"--{flag}: {error.problem}"
        if kind == "tuner" and name.lower() in _VARIANTS:
            error.fix = f"write {_VARIANTS[name.lower()]}"
        raise


def _has_flag(kind: str, config: CommandConfig) -> bool:
    """Whether a flag of the command names one: the engine that answers while training has none."""
    return any(_FLAGS[kind] in type(part).model_fields for _, part in config.sections())


def _pending(kind: str, config: CommandConfig) -> list[str]:
    if not _has_flag(kind, config):
        return []
    flag = _FLAGS[kind]
    section = getattr(config, config.section_of(flag))
    return list(extra(type(section), flag).get("x-pending-names", ()))
