"""The tuner `boft`: the kit, its size, and what it refuses."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import LAYERS, SHAPES


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_boft" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(steps=None, **options):
        tuner = create("tuner", "boft", {"target_modules": ["ALL"], **options}, run_context(steps=steps))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder).model)

    return prepare


class BoftTests(TunerTests):
    @pytest.fixture
    def name(self):
        return "boft"


class TestBoft(BoftTests):
    pass


class TestButterflies(BoftTests):
    @pytest.fixture
    def options(self):
        return {"boft_block_size": 8, "boft_n_butterfly_factor": 2, "target_modules": ["ALL"]}


@pytest.mark.parametrize(("size", "factors"), [(4, 1), (8, 1), (4, 2), (4, 3)])
def test_each_layer_trains_its_blocks_and_a_scale_of_each_output(prepare, size, factors):
    """m factors of in/b blocks (b, b), of which the skew-symmetric part counts (Liu et al., section 4), and out."""
    model = prepare(boft_block_size=size, boft_n_butterfly_factor=factors)
    blocks = (factors * (width // size) * size * size + out for width, out in SHAPES.values())
    assert trainable_parameters(model)[0] == LAYERS * sum(blocks)


def test_weights_are_rotated(prepare):
    """An orthogonal rotation keeps the lengths of, and the angles between, the neurons' weights."""
    tuner = create("tuner", "boft", {"target_modules": ["q_proj"], "boft_n_butterfly_factor": 2})
    model = prepare(target_modules=["q_proj"], boft_n_butterfly_factor=2)
    before = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.detach().clone()
    for name, value in model.named_parameters():
        if "boft_R" in name:
            torch.nn.init.normal_(value, std=0.5)
    after = tuner.merge(model).model.layers[0].self_attn.q_proj.weight.detach()
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after @ after.T, before @ before.T)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"boft_block_size": 5}, "--boft_block_size 5 does not divide the 32 inputs of "),
        ({"boft_block_num": 3}, "--boft_block_num 3 does not divide the 32 inputs of "),
        ({"boft_n_butterfly_factor": 5}, "--boft_n_butterfly_factor 5 needs a multiple of 16 blocks, "),
    ],
)
def test_blocks_that_do_not_fit_are_refused(prepare, options, problem):
    with pytest.raises(UsageError) as caught:
        prepare(**options)
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"boft_block_size": 8, "boft_block_num": 8}, "--boft_block_size and --boft_block_num exclude each other"),
        ({"boft_block_size": 0}, "--boft_block_size 0 needs --boft_block_num"),
    ],
)
def test_size_and_number_of_blocks_are_one_choice(options, problem):
    with pytest.raises(UsageError, match=problem):
        create("tuner", "boft", options)


def test_the_number_of_blocks_replaces_their_size(prepare):
    model = prepare(target_modules=["q_proj"], boft_block_num=2)
    assert model.base_model.model.model.layers[0].self_attn.q_proj.boft_R["default"].shape == (1, 2, 16, 16)
