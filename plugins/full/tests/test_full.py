"""The tuner `full`: the kit, and what stays frozen."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, tiny_model
from llmtune.testing.tuner import fit, logits, trainable


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_full" / "llmtune-plugin.toml"


class FullTests(TunerTests):
    several_adapters = False
    learning_rate = 1e-2

    @pytest.fixture
    def name(self):
        return "full"


class TestFull(FullTests):
    pass


class TestFrozenBottom(FullTests):
    @pytest.fixture
    def options(self):
        return {"freeze_parameters": 0.5, "additional_trainable_parameters": ["model.embed_tokens"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    return lambda **options: create("tuner", "full", options).prepare(load_tiny(folder).model)


def frozen(model):
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def test_everything_is_trained_by_default(prepare):
    assert frozen(prepare()) == []


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.99])
def test_a_share_is_frozen_from_the_bottom_up(prepare, share):
    model = prepare(freeze_parameters=share)
    parameters = dict(model.named_parameters())
    names = list(parameters)
    assert frozen(model) == names[: len(frozen(model))]
    total = sum(value.numel() for value in parameters.values())
    still = sum(parameters[name].numel() for name in frozen(model))
    following = parameters[names[len(frozen(model))]].numel()
    assert still <= share * total < still + following


def test_additional_prefixes_are_trained_although_frozen(prepare):
    model = prepare(freeze_parameters=1.0, additional_trainable_parameters=["model.norm", "model.layers.1."])
    assert trainable(model) == {
        name for name, _ in model.named_parameters() if name.startswith(("model.norm", "model.layers.1."))
    }


def test_freezing_everything_is_refused(prepare):
    with pytest.raises(UsageError) as caught:
        prepare(freeze_parameters=1.0)
    assert "--freeze_parameters 1" in caught.value.problem
    assert "--additional_trainable_parameters" in caught.value.fix


def test_a_share_above_one_is_refused(prepare):
    with pytest.raises(UsageError, match="--freeze_parameters"):
        prepare(freeze_parameters=1.5)


def test_the_saved_model_is_one_that_transformers_loads(prepare, tmp_path):
    model = prepare()
    fit(model, steps=2, learning_rate=1e-3)
    create("tuner", "full").save(model, tmp_path)
    from transformers import AutoModelForCausalLM

    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_on_a_cpu_it_chooses_fp32():
    from llmtune.plugins.catalogue import discover
    from llmtune.plugins.manager import PluginManager

    manager = PluginManager(discover())
    manager.activate(["full"])
    expected = [{}] if torch.cuda.is_available() else [{"dtype": "fp32"}]
    assert manager.event("llmtune_adjust_plan", plan=None, config=None) == expected
