"""Layers that LoRA adapts, by family of models."""

from __future__ import annotations

from typing import ClassVar


class LoRATM:
    """The defaults that SWIFT registered for each family, in its releases 1.3 and 2.4."""

    atom: ClassVar = ["q_proj", "k_proj", "v_proj"]
    baichuan: ClassVar = ["W_pack"]
    bloom: ClassVar = ["query_key_value"]
    bluelm: ClassVar = ["q_proj", "k_proj", "v_proj"]
    chatglm: ClassVar = ["query_key_value"]
    dbrx: ClassVar = ["attn.Wqkv"]
    deepseek2: ClassVar = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
    internlm: ClassVar = ["q_proj", "k_proj", "v_proj"]
    internlm2: ClassVar = ["wqkv"]
    llama: ClassVar = ["q_proj", "k_proj", "v_proj"]
    llama2: ClassVar = ["q_proj", "k_proj", "v_proj"]
    mamba: ClassVar = ["in_proj", "x_proj", "embeddings", "out_proj"]
    mistral: ClassVar = ["q_proj", "k_proj", "v_proj"]
    openbuddy: ClassVar = ["q_proj", "k_proj", "v_proj"]
    phi: ClassVar = ["Wqkv"]
    phi3: ClassVar = ["qkv_proj"]
    polylm: ClassVar = ["c_attn"]
    qwen: ClassVar = ["c_attn"]
    qwen1half: ClassVar = ["q_proj", "k_proj", "v_proj"]
    seqgpt: ClassVar = ["query_key_value"]
    skywork: ClassVar = ["q_proj", "k_proj", "v_proj"]
    telechat: ClassVar = ["key_value", "query"]
    xverse: ClassVar = ["q_proj", "k_proj", "v_proj"]
    yi: ClassVar = ["q_proj", "k_proj", "v_proj"]
    ziya: ClassVar = ["q_proj", "k_proj", "v_proj"]
