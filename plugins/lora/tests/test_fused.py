"""The fused layer is peft's layer: the same outputs and gradients, with dropout of its own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llmtune_plugin_lora._fused import _AdaptedLinear, _kept, fuse


class Model(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Linear(24, 40, bias=bias), nn.Linear(40, 16, bias=bias)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def adapted(*, has_bias=True, dtype=torch.float32, dropout=0.0, **settings):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules=["first", "second"], **settings)
    model = get_peft_model(Model(has_bias).to(dtype), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def result(model, x):
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    gradients = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    return {"output": output, "x": x.grad, **gradients}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24)])
def test_outputs_and_gradients_are_those_of_peft(bias, shape):
    x = torch.randn(shape)
    expected, found = result(adapted(has_bias=bias), x), result(fuse(adapted(has_bias=bias)), x)
    assert expected.keys() == found.keys()
    assert len(found) == 2 + 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


def test_over_half_precision_gradients_have_the_type_of_the_parameters():
    x = torch.randn(50, 24).bfloat16()
    expected, found = result(adapted(dtype=torch.bfloat16), x), result(fuse(adapted(dtype=torch.bfloat16)), x)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert (found[name].float() - value.float()).norm() <= 0.03 * value.float().norm(), name


def test_the_mask_of_the_forward_pass_is_that_of_the_backward_pass():
    """Numerical derivatives under the same random numbers are the analytical ones."""
    torch.manual_seed(0)
    sizes = {"x": (5, 6), "weight": (4, 6), "bias": (4,), "down": (2, 6), "up": (4, 2)}
    given = {name: torch.randn(size, dtype=torch.float64) for name, size in sizes.items()}
    for name in ("x", "down", "up"):
        given[name].requires_grad_()

    def seeded(x, down, up):
        torch.manual_seed(1)
        return _AdaptedLinear.apply(x, given["weight"], given["bias"], down, up, 3.0, 0.4)

    assert torch.autograd.gradcheck(seeded, (given["x"], given["down"], given["up"]))


def test_dropout_keeps_the_mean_and_draws_anew():
    torch.manual_seed(0)
    model = fuse(adapted(dropout=0.3)).train()
    x = torch.randn(1, 24).expand(20000, 24)
    first, second = model.base_model.model.first(x), model.base_model.model.first(x)
    assert not torch.equal(first, second)
    without = fuse(adapted(dropout=0.3)).eval().base_model.model.first(x)
    torch.testing.assert_close(first.mean(dim=0), without[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_every_element_is_dropped_as_often(share):
    """Also the fourth of each word, whose highest bit is a sign."""
    torch.manual_seed(0)
    kept = -_kept(torch.empty(100000, 7), share).float()
    torch.testing.assert_close(kept.mean(dim=0), torch.full((7,), 1 - share), rtol=0, atol=0.006)
    places = kept.flatten()[: 4 * (kept.numel() // 4)].view(-1, 4).mean(dim=0)
    torch.testing.assert_close(places, torch.full((4,), 1 - share), rtol=0, atol=0.006)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_what_is_no_plain_update_is_left_to_peft(settings):
    x = torch.randn(3, 24)
    model = adapted(**settings)
    expected = result(model, x)
    model.zero_grad()
    found = result(fuse(model), x)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_switched_off_and_merged_adapters_are_left_to_peft():
    model, x = fuse(adapted()), torch.randn(3, 24)
    with model.disable_adapter():
        assert torch.equal(model(x), Model.forward(adapted().unload(), x))
    expected = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_over_layers_of_another_kind_nothing_changes():
    class Other(nn.Linear):
        pass

    model = Model(True)
    model.first = Other(24, 40)
    model = fuse(get_peft_model(model, LoraConfig(r=4, target_modules=["first", "second"])))
    assert "forward" not in vars(model.base_model.model.first)
    assert "forward" in vars(model.base_model.model.second)
