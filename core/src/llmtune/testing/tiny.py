"""A tiny random model of a real architecture with a real tokenizer, for tests without downloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


HIDDEN, KEY_VALUE, MLP, LAYERS = 32, 16, 64, 2
SHAPES = {
    "q_proj": (HIDDEN, HIDDEN),
    "k_proj": (HIDDEN, KEY_VALUE),
    "v_proj": (HIDDEN, KEY_VALUE),
    "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (HIDDEN, MLP),
    "up_proj": (HIDDEN, MLP),
    "down_proj": (MLP, HIDDEN),
}
"""Linear layer of a decoder layer of `tiny_model` at its default width -> (inputs, outputs)."""


def tiny_tokenizer() -> Any:
    """Return a byte-level tokenizer (every byte is a token) with ChatML's control tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )


def tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    hidden_size: int = HIDDEN,
    initializer_range: float = 0.02,
    layers: int = LAYERS,
    tied: bool = False,
) -> Path:
    """Write a Llama of 2 layers, float32 (35 thousand parameters at width 32) with its tokenizer into `folder`.

    With a wide `initializer_range` its frozen head can tell tokens apart, so that adapters have something to learn.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        tie_word_embeddings=tied,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_tiny(folder: Path, *, dtype: str = "fp32", kwargs: Mapping[str, Any] | None = None) -> Any:
    """Load the model in `folder` as a run does; `kwargs` are a quantizer's. Returns a `LoadedModel`."""
    from llmtune.model.load import load_pretrained
    from llmtune.specs import LoadOptions

    return load_pretrained(folder, LoadOptions(dtype=dtype, kwargs=kwargs or {}))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: 70 training steps of the tiny model took 1.2 s, on two of a busy
    machine 22 s.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
