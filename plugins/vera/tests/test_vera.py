"""The tuner `vera`: the kit, its size, and what it refuses."""

from pathlib import Path

import pytest
import torch

from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import HIDDEN, KEY_VALUE, LAYERS, MLP, SHAPES


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_vera" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(steps=None, **options):
        tuner = create("tuner", "vera", {"target_modules": ["ALL"], **options}, run_context(steps=steps))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder).model)

    return prepare


class TestVera(TunerTests):
    @pytest.fixture
    def name(self):
        return "vera"

    @pytest.fixture
    def options(self):
        return {"vera_rank": 32, "target_modules": ["ALL"]}

    def stored_values(self, model):
        shared = model.base_model
        return super().stored_values(model) + shared.vera_A["default"].numel() + shared.vera_B["default"].numel()


@pytest.mark.parametrize("rank", [1, 16])
def test_each_layer_trains_its_width_and_the_rank(prepare, rank):
    """b (out) and d (rank): Kopiczko et al., section 3."""
    assert trainable_parameters(prepare(vera_rank=rank))[0] == LAYERS * sum(out + rank for _, out in SHAPES.values())


def test_all_layers_share_the_random_matrices(prepare):
    model = prepare(vera_rank=4)
    shared = model.base_model
    layers = [module for name, module in model.named_modules() if name.endswith("proj")]
    assert len(layers) == LAYERS * len(SHAPES)
    assert all(layer.vera_A["default"] is shared.vera_A["default"] for layer in layers)
    assert shared.vera_A["default"].shape == (4, MLP)
    assert shared.vera_B["default"].shape == (MLP, 4)


def test_the_key_decides_the_matrices(prepare):
    one, same, other = (prepare(vera_rank=4, vera_projection_prng_key=key) for key in (0, 0, 1))
    assert torch.equal(one.base_model.vera_A["default"], same.base_model.vera_A["default"])
    assert not torch.equal(one.base_model.vera_A["default"], other.base_model.vera_A["default"])


def test_d_starts_where_asked_and_b_at_zero(prepare):
    model = prepare(vera_rank=4, vera_d_initial=0.5)
    for kind, start in (("lambda_d", 0.5), ("lambda_b", 0.0)):
        assert {one for name, value in model.named_parameters() if kind in name for one in value.tolist()} == {start}


def test_the_update_is_that_of_the_paper(prepare):
    model = prepare(vera_rank=4)
    layer = model.base_model.model.model.layers[0].self_attn.k_proj
    torch.nn.init.normal_(layer.vera_lambda_b["default"])
    a, b = layer.vera_A["default"][:, :HIDDEN], layer.vera_B["default"][:KEY_VALUE]
    inputs = torch.randn(3, HIDDEN)
    update = ((inputs @ a.T) * layer.vera_lambda_d["default"]) @ b.T * layer.vera_lambda_b["default"]
    torch.testing.assert_close(layer(inputs), layer.base_layer(inputs) + update)
