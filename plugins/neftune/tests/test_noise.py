import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llmtune_plugin_neftune._noise import add_noise, sample_lengths

ALPHA, WIDTH = 5.0, 64
PACKED = torch.tensor([[*range(30), *range(10), *range(60)]])


@pytest.fixture
def model():
    config = LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    made = LlamaForCausalLM(config)
    add_noise(made, ALPHA)
    return made


@pytest.fixture(params=["bare", "lora"])
def added(model, request):
    """What is added to the embeddings of ids (B, T)."""
    called = model if request.param == "bare" else get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))

    def measure(ids, **given):
        called(input_ids=ids, **given)
        return (seen.pop() - model.get_input_embeddings().weight[ids]).detach()

    return measure


def limit(length):
    return ALPHA / (length * WIDTH) ** 0.5


def test_each_sample_of_a_sequence_has_noise_of_its_own_length(model, added):
    model.train()
    noise = added(torch.ones(1, 100, dtype=torch.int64), position_ids=PACKED)
    for part, length in zip(noise.split([30, 10, 60], dim=1), (30, 10, 60), strict=True):
        assert limit(length) * 0.95 < part.abs().max() <= limit(length)
        assert abs(part.mean()) < limit(length) / 10


def test_padding_does_not_make_the_noise_smaller(model, added):
    model.train()
    mask = torch.ones(2, 50, dtype=torch.int64)
    mask[1, 20:] = 0
    noise = added(torch.ones(2, 50, dtype=torch.int64), attention_mask=mask)
    assert limit(50) * 0.95 < noise[0].abs().max() <= limit(50)
    assert limit(20) * 0.95 < noise[1, :20].abs().max() <= limit(20)


def test_without_either_a_sequence_is_a_sample():
    assert sample_lengths(torch.zeros(2, 7, 3), None, None).tolist() == [[7.0] * 7] * 2


def test_an_evaluation_has_no_noise(model, added):
    model.eval()
    assert added(torch.ones(1, 8, dtype=torch.int64)).abs().max() == 0
