"""Whether samples in one sequence stay apart: what one of them says must not change what the model makes of another."""

from __future__ import annotations

from typing import Any

import torch

from llmtune.api import Encoded, UsageError
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._forward import Forward, eval_mode
from llmtune_plugin_hf._varlen import VarlenAttention

_LENGTHS = (7, 9, 6)


def can_be_padding_free(model: Any, attention: VarlenAttention) -> bool:
    """Whether attention inside of samples costs no more than each alone: with `attention`, or FlashAttention."""
    kind = getattr(model.config, "_attn_implementation", None) or ""
    return attention.install(model) or kind.startswith("flash_attention")


def mixes_samples(model: Any) -> UsageError:
    """Return what to say where packs were asked for."""
    kind = getattr(model.config, "_attn_implementation", None) or "its own attention"
    return UsageError(
        f"--packing: with {kind}, {type(model).__name__} mixes the samples of a pack",
        fix="train with --packing false, or choose another implementation (--use_flash_attn)",
    )


def check_heads(model: Any, ranks_of_a_sequence: int) -> None:
    """Raise `UsageError` where ranks that share a sequence would be left without a head of attention."""
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
    if ranks_of_a_sequence > heads:
        raise UsageError(
            f"--sequence_parallel_size {ranks_of_a_sequence}: {type(model).__name__} has {heads} heads of attention, "
            "and each rank needs one",
            fix=f"--sequence_parallel_size {heads} or less",
        )


def cannot_share_a_sequence(model: Any) -> UsageError:
    """Return what to say where ranks were to share sequences."""
    kind = getattr(model.config, "_attn_implementation", None) or "its own attention"
    return UsageError(
        f"--sequence_parallel_size: {type(model).__name__} with {kind} cannot be cut along the sequence",
        fix="leave --use_flash_attn out; models whose layers carry a state along the sequence train with "
        "--sequence_parallel_size 1",
    )


@torch.no_grad()
def keeps_apart(model: Any, forward: Forward, collate: Collate) -> bool:
    """Whether samples of a pack are to the model what they are alone, and do not see each other.

    Three short samples are packed; the logits of the others must not change by more than rounding when one is
    replaced: experts get other matrices then. Models whose layers carry a state along the sequence fail here,
    those that number positions by themselves fail the comparison with each alone.
    """
    was_training = model.training
    eval_mode(model)
    try:
        return _is_as_alone(model, forward, collate) and not any(
            _leaks(model, forward, collate, changed) for changed in range(len(_LENGTHS))
        )
    except torch.OutOfMemoryError:
        raise
    except Exception:  # attention of its own, which wants a mask, or arguments that are not there
        return False
    finally:
        model.train(was_training)


_ROUNDED = 0.2
"""How far logits in half precision may lie apart by rounding: trained SmolLM2 in bf16 was seen at 0.15, a GPT-2 whose
positions are not restarted at 0.79.
"""


def _is_as_alone(model: Any, forward: Forward, collate: Collate) -> bool:
    ids = _ids(model)
    alone_in_a_batch = Collate(collate.pad_token_id, padding_free=False)
    alone = [forward.logits(model, alone_in_a_batch([_row(one)]))[0] for one in torch.split(ids, [*_LENGTHS])]
    expected, found = torch.cat(alone).float(), _packed(model, forward, collate, ids).float()
    return _differ_by(found, expected) <= (1e-3 if alone[0].dtype == torch.float32 else _ROUNDED)


def _differ_by(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _leaks(model: Any, forward: Forward, collate: Collate, changed: int) -> bool:
    """Whether any logit outside of sample `changed` differs when its tokens do."""
    total, start = sum(_LENGTHS), sum(_LENGTHS[:changed])
    end = start + _LENGTHS[changed]
    one, other = _ids(model), _ids(model)
    other[start:end] = _ids(model, first=17)[start:end]
    outside = torch.ones(total, dtype=torch.bool)
    outside[start:end] = False
    first, second = (_packed(model, forward, collate, ids)[outside] for ids in (one, other))
    return _differ_by(first.float(), second.float()) > (1e-6 if first.dtype == torch.float32 else 0.01)


def _packed(model: Any, forward: Forward, collate: Collate, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits (T, V) of one pack, without padding that follows."""
    return forward.logits(model, collate([{**_row(ids), "lengths": [*_LENGTHS]}]))[0, : len(ids)]


def _ids(model: Any, *, first: int = 0) -> torch.Tensor:
    """Return tokens from the middle of the vocabulary.

    The first ones are control tokens, hardly trained: in bf16 what SmolLM2 makes of them differs by 11 % between two
    orders of rounding, what it makes of words by 1 %.
    """
    size: int = model.config.get_text_config().vocab_size
    return size // 4 + (first + torch.arange(sum(_LENGTHS))) * 37 % (size // 2)


def _row(ids: torch.Tensor) -> Encoded:
    return {"input_ids": ids.tolist(), "labels": ids.tolist()}
