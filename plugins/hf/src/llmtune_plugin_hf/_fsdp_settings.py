"""What --fsdp, --fsdp_config, --fsdp_num and --model_layer_cls_name ask for, in the words of FSDP2."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.api import UsageError, did_you_mean, local_world_size

if TYPE_CHECKING:
    from llmtune.api import DistributedSection

_GATHERED_ONCE = {"full_shard": False, "shard_grad_op": True, "hybrid_shard": False, "hybrid_shard_zero2": True}
"""How a model is shared -> whether its layers stay whole between the forward and the backward pass."""
_WORDS = (*_GATHERED_ONCE, "auto_wrap", "offload")
_CLASSES = "transformer_layer_cls_to_wrap"
_KNOWN = (_CLASSES, "reshard_after_forward", "cpu_offload", "offload_params")
_OF_FSDP_1 = (
    *("backward_prefetch", "forward_prefetch", "limit_all_gathers", "use_orig_params", "sync_module_states", "version"),
    *("cpu_ram_efficient_loading", "min_num_params", "state_dict_type", "auto_wrap_policy", "sharding_strategy"),
    *("activation_checkpointing", "xla", "xla_fsdp_v2", "xla_fsdp_settings", "xla_fsdp_grad_ckpt"),
)
"""Settings that transformers documents and FSDP2 decides by itself, or that are flags of llmtune."""
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
"""Those that update every number of a parameter alone: it does not matter to them that they see a part."""


@dataclass(frozen=True, kw_only=True)
class FsdpSettings:
    """How ranks share one model."""

    gathered_once: bool
    """Whether layers that the forward pass gathered stay whole until the backward pass: faster, and takes more."""
    offload: bool
    """Whether parameters, gradients and the optimizer's state lie in the RAM."""
    layer_classes: tuple[str, ...]
    """Classes of the modules that are gathered one at a time; none: the decoder layers."""
    sharers: int
    """Ranks that share one copy of the model; each further group of as many has a copy of its own."""
    left_out: tuple[str, ...] = ()
    """Settings that are understood and change nothing."""


def fsdp_settings(section: DistributedSection, world_size: int) -> FsdpSettings:
    """Read the flags; raise `UsageError` for what they cannot mean."""
    words = section.fsdp.replace(",", " ").split()
    unknown = [word for word in words if word not in _WORDS]
    if unknown:
        raise _unknown_word(unknown[0])
    kinds = [word for word in words if word in _GATHERED_ONCE] or ["full_shard"]
    if len(kinds) > 1:
        raise UsageError(f"--fsdp {section.fsdp!r}: {' and '.join(kinds)} exclude each other")
    config = _read_config(section.fsdp_config)
    reshard = config.get("reshard_after_forward", not _GATHERED_ONCE[kinds[0]])
    classes = section.model_layer_cls_name or config.get(_CLASSES) or ()
    return FsdpSettings(
        gathered_once=not reshard,
        offload="offload" in words or bool(config.get("cpu_offload") or config.get("offload_params")),
        layer_classes=tuple(classes.replace(",", " ").split()) if isinstance(classes, str) else tuple(classes),
        sharers=_sharers(section, kinds[0], world_size),
        left_out=tuple(name for name in config if name in _OF_FSDP_1),
    )


def fsdp_problems(config: Any, world_size: int) -> Iterator[str]:
    """Yield what speaks against --fsdp before anything is loaded."""
    section: DistributedSection = config.distributed
    if not section.fsdp:
        return
    if world_size == 1:
        yield "--fsdp shares a model among processes, and this run has one: NPROC_PER_NODE=2 starts two"
        return
    try:
        fsdp_settings(section, world_size)
    except UsageError as error:
        yield f"{error.problem}; {error.fix}" if error.fix else error.problem
    if config.optimizer.optim not in OPTIMIZERS:
        yield f"--fsdp works with --optim {', '.join(OPTIMIZERS)}, found {config.optimizer.optim}"


def _unknown_word(word: str) -> UsageError:
    if word == "no_shard":
        return UsageError("--fsdp no_shard shares nothing", fix="leave out --fsdp: every process has the whole model")
    return UsageError(f"--fsdp {word!r} is unknown", fix=did_you_mean(word, _WORDS) or f"known are {', '.join(_WORDS)}")


def _sharers(section: DistributedSection, kind: str, world_size: int) -> int:
    asked = section.fsdp_num if section.fsdp_num > 1 else world_size
    if kind.startswith("hybrid") and section.fsdp_num == 1:
        asked = local_world_size()
    if world_size % asked:
        raise UsageError(
            f"--fsdp_num {asked} does not divide the {world_size} processes of the run",
            fix="leave it out to share one copy among all of them",
        )
    return asked


def _read_config(given: str | dict[str, Any] | None) -> Mapping[str, Any]:
    """Return the settings without the prefix `fsdp_`, which accelerate's files have."""
    found = _as_json(given) if isinstance(given, str) else given or {}
    settings = {str(name).removeprefix("fsdp_"): value for name, value in found.items()}
    for name in settings:
        if name not in (*_KNOWN, *_OF_FSDP_1):
            hint = did_you_mean(name, _KNOWN) or f"known are {', '.join(_KNOWN)}"
            raise UsageError(f"--fsdp_config: {name!r} is unknown", fix=hint)
    return settings


def _as_json(text: str) -> dict[str, Any]:
    path = Path(text).expanduser()
    try:
        content = text if text.lstrip().startswith("{") else path.read_text(encoding="utf-8")
        found = json.loads(content)
    except OSError as error:
        raise UsageError(f"--fsdp_config {text}: {error.strerror or error}", fix="give a JSON file or JSON") from error
    except ValueError as error:
        raise UsageError(f"--fsdp_config {text} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--fsdp_config {text} holds no settings", fix='write {"reshard_after_forward": true}')
    return found
