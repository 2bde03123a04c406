"""The quantizer `bnb` on a CPU: what is quantized, that it computes, and that LoRA trains on top."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.plugins.catalogue import discover
from llmtune.plugins.manager import PluginManager
from llmtune.testing import ManifestTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits, trainable
from llmtune_plugin_bnb._quantizer import count_quantized

LINEAR = 2 * 7 + 1  # seven layers in each of two blocks, and the head
WIDTH = 128  # 4-bit layers narrower than a block of 64 fail in bitsandbytes' CPU kernel


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_bnb" / "llmtune-plugin.toml"


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"), hidden_size=WIDTH)


@pytest.fixture
def load(folder):
    def load(bits, dtype="fp32", **options):
        quantizer = create("quantizer", "bnb", options, run_context(quantization_bit=bits))
        return load_tiny(folder, dtype=dtype, kwargs=quantizer.load_kwargs(dtype))

    return load


def model_loaded(loaded, bits, say=print):
    manager = PluginManager(discover())
    manager.activate(["bnb"])
    run = run_context(quantization_bit=bits)
    object.__setattr__(run, "say", say)
    manager.event("llmtune_model_loaded", loaded=loaded, run=run)


@pytest.mark.parametrize("bits", [4, 8])
class TestBits:
    def test_every_linear_layer_but_the_head_is_quantized(self, load, bits):
        assert count_quantized(load(bits).model) == (LINEAR - 1, LINEAR)

    def test_the_run_says_how_many_layers_are_quantized(self, load, bits):
        said = []
        model_loaded(load(bits), bits, said.append)
        assert said == [f"bnb: {LINEAR - 1} of {LINEAR} linear layers in {bits} bits"]

    def test_weights_take_less_memory(self, load, folder, bits):
        weight = load(bits).model.model.layers[0].mlp.up_proj.weight
        whole = load_tiny(folder).model.model.layers[0].mlp.up_proj.weight
        assert weight.element_size() * weight.numel() == whole.numel() * bits // 8

    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_answers_stay_close_to_the_whole_model(self, load, folder, bits, dtype):
        found, whole = logits(load(bits, dtype).model).float(), logits(load_tiny(folder).model)
        assert torch.isfinite(found).all()
        assert torch.nn.functional.cosine_similarity(found, whole, dim=-1).mean() > 0.9

    def test_lora_trains_on_top_and_leaves_the_base_alone(self, load, bits):
        torch.manual_seed(0)
        model = create("tuner", "lora", {"target_modules": ["ALL"]}).prepare(load(bits).model)
        names = trainable(model)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        losses = fit(model, steps=20, learning_rate=1e-2)
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert losses[-1] < 0.98 * losses[0]
        assert changed == names
        assert all("lora_" in name for name in names)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_with_nothing_quantized_is_refused(folder, bits):
    with pytest.raises(UsageError, match=f"none of the {LINEAR} linear layers"):
        model_loaded(load_tiny(folder), bits)


def test_the_options_reach_bitsandbytes(load):
    options = {
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_comp_dtype": "bf16",
        "bnb_4bit_quant_storage": "fp16",
    }
    layer = load(4, **options).model.model.layers[0].self_attn.q_proj
    state = layer.weight.quant_state
    assert (state.quant_type, state.nested, layer.compute_dtype) == ("fp4", False, torch.bfloat16)
    assert layer.weight.dtype == torch.float16


def test_by_default_it_is_nf4_with_quantized_scales_in_the_dtype_of_the_run(load):
    layer = load(4, "bf16").model.model.layers[0].self_attn.q_proj
    state = layer.weight.quant_state
    assert (state.quant_type, state.nested, layer.compute_dtype) == ("nf4", True, torch.bfloat16)
