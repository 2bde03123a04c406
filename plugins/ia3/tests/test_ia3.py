"""The tuner `ia3`: the kit, its size, and what it refuses."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import HIDDEN, KEY_VALUE, LAYERS, MLP
from llmtune.testing.tuner import Training


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_ia3" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(steps=None, **options):
        tuner = create("tuner", "ia3", {"target_modules": ["ALL"], **options}, run_context(steps=steps))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder).model)

    return prepare


class TestIa3(TunerTests):
    learning_rate = 0.1

    @pytest.fixture
    def name(self):
        return "ia3"

    @pytest.fixture
    def options(self):
        return {"target_modules": ["k_proj", "v_proj", "down_proj"], "ia3_feedforward_modules": ["down_proj"]}


def test_each_layer_trains_its_outputs_or_the_inputs_of_the_mlp(prepare):
    """l_k and l_v (out), l_ff (in): Liu et al., section 3.3."""
    model = prepare(target_modules=["k_proj", "v_proj", "down_proj"], ia3_feedforward_modules=["down_proj"])
    assert trainable_parameters(model)[0] == LAYERS * (KEY_VALUE + KEY_VALUE + MLP)
    assert trainable_parameters(prepare(target_modules=["down_proj"]))[0] == LAYERS * HIDDEN


def test_outputs_are_scaled_and_inputs_of_the_mlp(prepare):
    model = prepare(target_modules=["k_proj", "down_proj"], ia3_feedforward_modules=["down_proj"])
    layer = model.base_model.model.model.layers[0]
    for module, width in ((layer.self_attn.k_proj, HIDDEN), (layer.mlp.down_proj, MLP)):
        scale = module.ia3_l["default"]
        torch.nn.init.normal_(scale)
        inputs = torch.randn(3, width)
        expected = (
            module.base_layer(inputs * scale.view(-1)) if width == MLP else module.base_layer(inputs) * scale.view(-1)
        )
        torch.testing.assert_close(module(inputs), expected)


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_a_base_in_half_precision_trains(tmp_path, bits):
    quantizer = create("quantizer", "bnb", {}, run_context(quantization_bit=bits or 4))
    folder = tiny_model(tmp_path, hidden_size=64, initializer_range=0.2)
    base = load_tiny(folder, dtype="bf16", kwargs=quantizer.load_kwargs("bf16") if bits else {}).model
    tuner = create("tuner", "ia3", {"target_modules": ["ALL"], "ia3_feedforward_modules": ["down_proj"]})
    losses = Training(tuner, tuner.prepare(base), learning_rate=0.1).fit(10)
    assert losses[-1] < losses[0]


def test_a_feedforward_layer_that_is_not_adapted_is_refused(prepare):
    with pytest.raises(UsageError) as caught:
        prepare(target_modules=["k_proj"], ia3_feedforward_modules=["down_proj"])
    assert caught.value.problem == "--ia3_feedforward_modules down_proj is not among --target_modules k_proj"
    assert caught.value.fix.endswith("--target_modules k_proj down_proj")
