"""Shifted sparse attention (S2-Attn). Reference: Chen et al., LongLoRA (arXiv:2309.12307), section 3.2.

B batch, H heads (K of keys and values), T tokens, N groups of G tokens, D head size.
"""

from __future__ import annotations

import copy
import math
import sys
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llmtune.api import UsageError

_MARK = "+s2"


def attend_in_groups(model: Any, group_size: int | None) -> None:
    """Let a model of transformers attend in groups while it is in training mode, and fully otherwise."""
    inner = model.config._attn_implementation
    if not (model.is_backend_compatible() and model._can_set_attn_implementation()):
        raise UsageError(
            f"longlora: the attention of {type(model).__name__} cannot be replaced (transformers' AttentionInterface)",
            fix="choose another --sft_type for this model",
        )
    if inner not in ("sdpa", "eager"):
        raise UsageError(f"longlora: S2-Attn is not made for {inner}", fix="leave --use_flash_attn out: sdpa is used")
    name = f"{inner}{_MARK}-{group_size or 'quarter'}"
    AttentionInterface.register(name, partial(shifted_sparse_attention, inner=inner, group_size=group_size))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[inner])
    model.set_attn_implementation(name)


def attend_fully(model: Any) -> None:
    """Undo `attend_in_groups`."""
    model.set_attn_implementation(model.config._attn_implementation.partition(_MARK)[0])


def shifted_sparse_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    inner: str,
    group_size: int | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention inside of groups in training, through the implementation `inner`; full attention otherwise.

    `query` (B, H, T, D), `key` and `value` (B, K, T, D); `attention_mask` None or (B, 1, T, T), boolean or added to
    scores. Returns (B, T, H, D). The length is padded to a multiple of the group size, at the end, where causal
    attention does not look.
    """
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(inner, _eager(module))
    length = query.shape[2]
    size = group_size or 2 * math.ceil(length / 8)
    if not module.training or key.shape[2] != length or size >= length:
        return attend(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    heads, key_heads = query.shape[1], key.shape[1]
    if key_heads % 2 and key_heads < heads:  # half of the heads share keys with the others: give each its own
        key, value = (tensor.repeat_interleave(heads // key_heads, dim=1) for tensor in (key, value))
        module = copy.copy(module)
        module.num_key_value_groups = 1
    padding = -length % size
    order = _shifted_order(length + padding, size, query.device)
    if attention_mask is not None:
        attention_mask = _grouped_mask(attention_mask, order, size, query)
    groups = (_grouped(tensor, order, size) for tensor in (query, key, value))
    output, _ = attend(module, *groups, attention_mask, **kwargs)
    return _ungrouped(output, order, len(query))[:, :length], None


def _eager(module: Any) -> Any:
    """Return the eager attention of the family that a module belongs to; it is not registered anywhere."""
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)


def _shifted_order(length: int, size: int, device: torch.device) -> torch.Tensor:
    """Return the tokens (T,) in the order of the shifted groups: by half a group, the last half wraps around.

    The wrapped group is in the order of positions, so that causal attention inside of it lets no token see a later
    one. Rolled as in the paper's listing, the first tokens of a text would see its last ones.
    """
    half = size // 2
    last = length - (size - half)
    tokens = torch.arange(length, device=device)
    return torch.cat((tokens[:half], tokens[last:], tokens[half:last]))


def _grouped(x: torch.Tensor, order: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B * N, H, G, D) from (B, H, T, D); the second half of the heads is shifted."""
    batch, heads, length, width = x.shape
    x = F.pad(x, (0, 0, 0, len(order) - length))
    x = torch.cat((x[:, : heads // 2], x[:, heads // 2 :, order]), dim=1)
    return x.view(batch, heads, -1, size, width).transpose(1, 2).reshape(-1, heads, size, width)


def _ungrouped(x: torch.Tensor, order: torch.Tensor, batch: int) -> torch.Tensor:
    """Return (B, T, H, D) from (B * N, G, H, D)."""
    heads, width = x.shape[-2:]
    x = x.reshape(batch, -1, heads, width)
    return torch.cat((x[:, :, : heads // 2], x[:, order.argsort(), heads // 2 :]), dim=2)


def _grouped_mask(mask: torch.Tensor, order: torch.Tensor, size: int, query: torch.Tensor) -> torch.Tensor:
    """Return (B * N, H, G, G) from (B, 1, T, T): padding, packed samples and sliding windows hold in groups too."""
    batch, heads, length, _ = query.shape
    hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    padding = len(order) - length
    mask = F.pad(mask[..., :length], (0, padding, 0, padding), value=hidden)
    straight, shifted = (order.view(-1, size) for order in (order.sort().values, order))
    blocks = torch.cat(
        [
            mask[:, :, tokens[:, :, None], tokens[:, None, :]].expand(batch, count, -1, -1, -1)
            for tokens, count in ((straight, heads // 2), (shifted, heads - heads // 2))
        ],
        dim=1,
    )
    return blocks.transpose(1, 2).reshape(-1, heads, size, size)
