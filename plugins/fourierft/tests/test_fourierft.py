"""The tuner `fourierft`: the kit, its size, and what it refuses."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import HIDDEN, KEY_VALUE, LAYERS, SHAPES


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_fourierft" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(steps=None, **options):
        tuner = create("tuner", "fourierft", {"target_modules": ["ALL"], **options}, run_context(steps=steps))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder).model)

    return prepare


class TestFourierft(TunerTests):
    starts_as_identity = False
    learning_rate = 0.1

    @pytest.fixture
    def name(self):
        return "fourierft"

    @pytest.fixture
    def options(self):
        return {"fourier_n_frequency": 200, "fourier_scaling": 30.0, "target_modules": ["ALL"]}


@pytest.mark.parametrize("count", [1, 50])
def test_each_layer_trains_one_number_for_each_frequency(prepare, count):
    """n coefficients for each layer, whatever its size: Gao et al., section 3.1."""
    assert trainable_parameters(prepare(fourier_n_frequency=count))[0] == LAYERS * len(SHAPES) * count


def test_the_update_is_the_inverse_transform_of_the_spectrum(prepare):
    model = prepare(target_modules=["k_proj"], fourier_n_frequency=7, fourier_scaling=2.0)
    layer = model.base_model.model.model.layers[0].self_attn.k_proj
    rows, columns = layer.indices["default"]
    spectrum = torch.zeros(KEY_VALUE, HIDDEN)
    spectrum[rows, columns] = layer.fourierft_spectrum["default"]
    update = torch.fft.ifft2(spectrum).real * 2.0
    inputs = torch.randn(3, HIDDEN)
    torch.testing.assert_close(layer(inputs), layer.base_layer(inputs) + inputs @ update.T)


def test_more_frequencies_than_the_layer_has_are_refused(prepare):
    with pytest.raises(UsageError) as caught:
        prepare(target_modules=["q_proj", "k_proj"], fourier_n_frequency=600)
    assert caught.value.problem == (
        "--fourier_n_frequency 600 is more than the 512 frequencies of model.layers.0.self_attn.k_proj"
    )
