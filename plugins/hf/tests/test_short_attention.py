"""Attention by its formula and losses by a few rows at a time are what torch computes."""

import pytest
import torch
from torch.nn import functional as F

from llmtune_plugin_hf._short_attention import short_attention
from llmtune_plugin_hf._token_losses import token_losses


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
def test_outputs_and_gradients_are_those_of_sdpa(heads, key_heads):
    torch.manual_seed(0)
    sizes = [(1, heads, 11, 8), (1, key_heads, 11, 8), (1, key_heads, 11, 8)]
    results = []
    inputs = [torch.randn(size, dtype=torch.float64) for size in sizes]
    weight = torch.randn(1, heads, 11, 8, dtype=torch.float64)
    hidden = torch.zeros(11, 11).masked_fill(torch.ones(11, 11).triu(1).bool(), float("-inf"))
    for own in (True, False):
        query, key, value = (one.clone().requires_grad_() for one in inputs)
        if own:
            output = short_attention(query, key, value, hidden, 0.3)
        else:
            output = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3, enable_gqa=True)
        (output * weight).sum().backward()
        results.append([output, query.grad, key.grad, value.grad])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_in_bf16_it_is_as_close_to_float32_as_sdpa():
    torch.manual_seed(0)
    inputs = [torch.randn(1, 4, 90, 32) for _ in range(3)]
    hidden = torch.zeros(90, 90).masked_fill(torch.ones(90, 90).triu(1).bool(), float("-inf"))
    exact = F.scaled_dot_product_attention(*inputs, is_causal=True)
    half = [one.bfloat16() for one in inputs]
    own = short_attention(*half, hidden, 32**-0.5).float()
    torchs = F.scaled_dot_product_attention(*half, is_causal=True).float()
    assert (own - exact).norm() <= 1.5 * (torchs - exact).norm()


@pytest.mark.parametrize("words", [7, 3_000_000])
def test_losses_are_those_of_cross_entropy(words):
    """Also where one row is more than is held in float32 at a time."""
    torch.manual_seed(0)
    logits, targets = torch.randn(5, words), torch.tensor([1, -100, 3, 0, words - 1])
    results = []
    for loss in (token_losses, lambda *given: F.cross_entropy(*given, ignore_index=-100, reduction="none")):
        given = logits.clone().requires_grad_()
        losses = loss(given, targets)
        (losses * torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0])).sum().backward()
        results.append([losses, given.grad])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_no_token_has_no_loss():
    logits = torch.randn(0, 9, requires_grad=True)
    token_losses(logits, torch.empty(0, dtype=torch.int64)).sum().backward()
    assert logits.grad.shape == (0, 9)
