"""Attention inside of samples that follow each other in one sequence, without padding or a mask over all of it.

H heads (K of keys and values), T tokens of all samples, D head size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from llmtune_plugin_hf._sequence_parallel import SequenceParallel
from llmtune_plugin_hf._short_attention import short_attention

_UNKNOWN = ("position_bias", "s_aux", "softcap")
"""What some families add to the scores; scaled_dot_product_attention has no place for it inside of samples."""
_SHORT = 640
"""Tokens up to which `short_attention` is faster than sdpa on a CPU (docs/performance.md)."""

_OVER_THE_SEQUENCE = ("attention_chunk_size", "index_topk", "index_topk_blocks")
"""Settings of attention that counts or chooses over the whole sequence (Llama 4, DeepSeek V3.2, MiniMax M3)."""


class VarlenAttention:
    """An implementation of attention for one model of transformers: `sdpa`, but sample by sample inside of `over`.

    There, what it gets is this rank's slice of the sequence of `parallel`.
    """

    def __init__(self, parallel: SequenceParallel | None = None) -> None:
        self.parallel = parallel or SequenceParallel()
        self.lengths: Sequence[int] | None = None
        self.installed = False
        self._ends: torch.Tensor | None = None
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def install(self, model: Any) -> bool:
        """Replace the model's attention where it is `sdpa`; return whether it was."""
        fits = getattr(model.config, "_attn_implementation", None) == "sdpa"
        text = model.config.get_text_config()
        if any(getattr(text, name, None) for name in _OVER_THE_SEQUENCE) or not (
            fits and model.is_backend_compatible() and model._can_set_attn_implementation()
        ):
            return False
        name = f"sdpa-varlen-{id(self)}"
        AttentionInterface.register(name, self.attend)
        AttentionMaskInterface.register(name, self.mask)
        model.set_attn_implementation(name)
        self.installed = True
        return True

    def remove(self, model: Any) -> None:
        """Undo `install`, where it did anything."""
        if self.installed:
            model.set_attn_implementation("sdpa")

    @contextmanager
    def over(self, lengths: Sequence[int] | None) -> Iterator[None]:
        """Inside, forward and backward passes are over samples of these lengths; None: over a batch as it is."""
        self.lengths, self._ends, self._masks = lengths, None, {}
        try:
            yield
        finally:
            self.lengths = None

    def mask(self, **kwargs: Any) -> torch.Tensor | None:
        """Return the mask that sdpa needs; for `attend` the size of the sliding window, 0 where there is none.

        Layers tell their window to FlashAttention too, but not always the one that their mask has.
        """
        if self.lengths is not None:
            return torch.tensor(kwargs.get("local_size") or 0).view(1, 1, 1, 1)
        mask: torch.Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](**kwargs)
        return mask

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (1, t, H, D) of `query` (1, H, t, D), `key` and `value` (1, K, t, D); see transformers.

        T is t times the ranks that share the sequence.
        """
        if self.lengths is None:
            settings = {"dropout": dropout, "scaling": scaling, **kwargs}
            return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore
        own_mask = attention_mask is None or attention_mask.numel() != 1
        slices = query.shape[2] * self.parallel.size != sum(self.lengths)
        if own_mask or slices or any(kwargs.get(name) is not None for name in _UNKNOWN):
            raise NotImplementedError(f"{type(module).__name__} attends in a way of its own")
        window = int(attention_mask) or None  # type: ignore[arg-type]
        if self.parallel.size == 1:
            return self._inside_samples(query, key, value, scaling, window, dropout), None
        if key.shape[1] % self.parallel.size:
            key, value = (one.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for one in (key, value))
        q, k, v = (self.parallel.to_heads(one) for one in (query, key, value))
        output = self._inside_samples(q, k, v, scaling, window, dropout)
        return self.parallel.to_slices(output.transpose(1, 2), query.shape[1]).transpose(1, 2), None

    def _inside_samples(
        self, query: Any, key: Any, value: Any, scaling: float | None, window: int | None, dropout: float
    ) -> torch.Tensor:
        if dropout == 0 and _has_kernel(query, value):
            return self._at_once(query, key, value, scaling, window)
        return self._one_by_one(query, key, value, scaling, window, dropout)

    def _at_once(self, query: Any, key: Any, value: Any, scaling: float | None, window: int | None) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        assert self.lengths is not None
        if self._ends is None or self._ends.device != query.device:
            ends = [0, *itertools.accumulate(self.lengths)]
            self._ends = torch.tensor(ends, dtype=torch.int32).to(query.device, non_blocking=True)
        groups, longest = query.shape[1] // key.shape[1], max(self.lengths)
        heads = (query, *(one.repeat_interleave(groups, dim=1) if groups > 1 else one for one in (key, value)))
        q, k, v = (one[0].transpose(0, 1) for one in heads)  # (T, H, D)
        reach = (-1 if window is None else window - 1, 0)
        output: Any = varlen_attn(q, k, v, self._ends, self._ends, longest, longest, scale=scaling, window_size=reach)
        return output[None]  # type: ignore[no-any-return]

    def _hidden(self, length: int, window: int | None) -> torch.Tensor:
        """Return what is added to the scores (T, T) of a sample; all layers with the same window share it."""
        if (length, window) not in self._masks:
            seen = _band(length, window, torch.device("cpu"))
            seen = torch.ones(length, length, dtype=torch.bool).tril() if seen is None else seen
            self._masks[length, window] = torch.zeros(length, length).masked_fill_(~seen, float("-inf"))
        return self._masks[length, window]

    def _one_by_one(
        self, query: Any, key: Any, value: Any, scaling: float | None, window: int | None, dropout: float
    ) -> torch.Tensor:
        assert self.lengths is not None
        short = dropout == 0 and query.device.type == "cpu" and query.dtype == torch.bfloat16
        outputs = []
        for q, k, v in zip(*(one.split(self.lengths, dim=2) for one in (query, key, value)), strict=True):
            if short and q.shape[2] <= _SHORT:
                hidden = self._hidden(q.shape[2], window)
                outputs.append(short_attention(q, k, v, hidden, scaling or q.shape[-1] ** -0.5))
                continue
            mask = _band(q.shape[2], window, q.device)
            groups = {"enable_gqa": query.shape[1] != key.shape[1]}
            outputs.append(
                F.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, **groups
                )
            )
        return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _has_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's varlen_attn (FlashAttention) takes these: half precision, on GPUs from Ampere on."""
    if not query.is_cuda or query.dtype == torch.float32 or torch.cuda.get_device_capability(query.device) < (8, 0):
        return False
    return query.shape[-1] == value.shape[-1] <= 256 and query.shape[-1] % 8 == 0


def _band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Return the mask (T, T) of a sliding window, None where it covers the sample."""
    if window is None or length <= window:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)
