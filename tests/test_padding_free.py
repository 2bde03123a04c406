"""Every native architecture: rows in one sequence without padding have the loss and the gradients of each alone.

Where an architecture cannot, it is found out before training, and rows are padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from native_models import ARCHITECTURES, tiny_config
from transformers import AutoModelForCausalLM

from llmtune.testing import one_thread
from llmtune_plugin_hf._collate import Collate
from llmtune_plugin_hf._forward import Forward
from llmtune_plugin_hf._isolation import can_be_padding_free, keeps_apart
from llmtune_plugin_hf._varlen import VarlenAttention

PADDED = {
    "AXK2ForCausalLM",
    "BambaForCausalLM",
    "BioGptForCausalLM",
    "BloomForCausalLM",
    "CodeGenForCausalLM",
    "DeepseekV32ForCausalLM",
    "DeepseekV4ForCausalLM",
    "DogeForCausalLM",
    "FalconForCausalLM",
    "FalconH1ForCausalLM",
    "FalconMambaForCausalLM",
    "GPTJForCausalLM",
    "GPTNeoForCausalLM",
    "GPTNeoXJapaneseForCausalLM",
    "Gemma2ForCausalLM",
    "GlmMoeDsaForCausalLM",
    "GptOssForCausalLM",
    "GraniteMoeHybridForCausalLM",
    "GraniteMoeSWAForCausalLM",
    "GraniteSWAForCausalLM",
    "HYV4ForCausalLM",
    "InklingForCausalLM",
    "JambaForCausalLM",
    "KimiLinearForCausalLM",
    "Lfm2ForCausalLM",
    "Lfm2MoeForCausalLM",
    "Llama4ForCausalLM",
    "Mamba2ForCausalLM",
    "MambaForCausalLM",
    "MiMoV2FlashForCausalLM",
    "MiniMaxForCausalLM",
    "MiniMaxM3VLForCausalLM",
    "MptForCausalLM",
    "NemotronHForCausalLM",
    "OlmoHybridForCausalLM",
    "OpenAIGPTLMHeadModel",
    "Qwen3NextForCausalLM",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM",
    "Qwen4ExpForCausalLM",
    "RecurrentGemmaForCausalLM",
    "RwkvForCausalLM",
    "StableLmForCausalLM",
    "VaultGemmaForCausalLM",
    "XGLMForCausalLM",
    "Zamba2ForCausalLM",
    "ZambaForCausalLM",
    "ZayaForCausalLM",
    "xLSTMForCausalLM",
}
"""A state along the sequence, attention over chunks or choices of it, or an attention of their own."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def rows() -> list[dict[str, Any]]:
    """Longer than the models' sliding windows, one shorter."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 250, (size,), generator=generator).tolist() for size in (19, 7, 23, 12)]
    return [{"input_ids": one, "labels": [-100, -100, *one[2:]]} for one in ids]


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_rows_without_padding_are_each_as_alone(architecture: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture)).eval()  # no dropout
    attention = VarlenAttention()
    forward = Forward(model, attention, torch.device("cpu"), pin_memory=False)
    free = Collate(0, padding_free=True)
    if not (can_be_padding_free(model, attention) and keeps_apart(model, forward, free)):
        assert architecture in PADDED
        return
    assert architecture not in PADDED, "it has become possible"
    with backward(model) as together:
        batch = free(rows())
        with forward.samples_of(batch):
            loss, _ = forward.loss(model, batch)
            loss.backward()
    attention.remove(model)
    with backward(model) as apart:
        alone = [forward.loss(model, Collate(0, padding_free=False)([row]))[0] for row in rows()]
        sum(alone).backward()
    torch.testing.assert_close(loss, sum(alone), rtol=1e-5, atol=1e-4)
    assert together.keys() == apart.keys()
    for name, value in apart.items():
        assert (together[name] - value).norm() <= 1e-4 * max(value.norm(), 1e-3), name


@contextmanager
def backward(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a mapping that holds the gradients when the block is left."""
    gradients: dict[str, torch.Tensor] = {}
    model.zero_grad()
    yield gradients
    gradients |= {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
