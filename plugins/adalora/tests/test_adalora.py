"""The tuner `adalora`: the kit, its size, and what it refuses."""

from pathlib import Path

import pytest
import torch

from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import LAYERS, SHAPES
from llmtune.testing.tuner import Training


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_adalora" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(steps=None, **options):
        tuner = create("tuner", "adalora", {"target_modules": ["ALL"], **options}, run_context(steps=steps))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder).model)

    return prepare


class AdaloraTests(TunerTests):
    @pytest.fixture
    def name(self):
        return "adalora"


class TestAdalora(AdaloraTests):
    @pytest.fixture
    def options(self):
        return {"target_modules": ["ALL"], "adalora_target_r": 4, "adalora_init_r": 6, "adalora_tfinal": 20}


class TestResumedWhereRanksAreFixed(AdaloraTests):
    """Of the 7 steps of the kit's run, the last 5 leave the ranks as they are; it is resumed after the third."""

    steps = 7
    target_loss_ratio = 0.9

    @pytest.fixture
    def options(self):
        return {"target_modules": ["ALL"], "adalora_tfinal": 5}


@pytest.mark.parametrize("rank", [8, 12])
def test_each_layer_trains_rank_times_in_plus_out_plus_one(prepare, rank):
    """P (out, r), the diagonal of Lambda (r) and Q (r, in): Zhang et al., equation 3."""
    model = prepare(adalora_init_r=rank)
    assert trainable_parameters(model)[0] == LAYERS * sum(rank * (sum(shape) + 1) for shape in SHAPES.values())


def values(model):
    """Singular values that are left in each layer."""
    return [int(torch.count_nonzero(value)) for name, value in model.named_parameters() if "lora_E" in name]


def test_the_target_is_reached_after_the_last_step_and_ranks_differ(folder):
    options = {"target_modules": ["ALL"], "adalora_target_r": 3, "adalora_init_r": 6}
    tuner = create("tuner", "adalora", options, run_context(steps=20))
    torch.manual_seed(0)
    model = tuner.prepare(load_tiny(folder).model)
    Training(tuner, model, learning_rate=1e-2).fit(20)
    left = values(model)
    assert sum(left) == 3 * len(left) == 3 * LAYERS * len(SHAPES)
    assert len(set(left)) > 1


@pytest.mark.parametrize(("first", "last", "seen"), [(10, 0, 8), (0, 10, 10)])
def test_ranks_stay_at_the_start_and_at_the_end(folder, first, last, seen):
    options = {"target_modules": ["ALL"], "adalora_target_r": 3, "adalora_init_r": 6}
    options |= {"adalora_tinit": first, "adalora_tfinal": last}
    tuner = create("tuner", "adalora", options, run_context(steps=20))
    torch.manual_seed(0)
    model = tuner.prepare(load_tiny(folder).model)
    training = Training(tuner, model, learning_rate=1e-2)
    training.fit(seen)
    expected = 6 if first else 3
    assert sum(values(model)) == expected * LAYERS * len(SHAPES)
    training.fit(2)
    assert sum(values(model)) == expected * LAYERS * len(SHAPES)


def test_the_penalty_is_zero_for_orthogonal_factors_alone(prepare):
    tuner = create("tuner", "adalora", {"adalora_orth_reg_weight": 0.25}, run_context(steps=9))
    model = prepare(target_modules=["q_proj"], adalora_init_r=8)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                value.copy_(torch.eye(*value.shape))
        assert tuner.penalty(model) == 0
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        layer.lora_A["default"].mul_(2)  # Q Q^T = 4 I: one of four distances is |3 I| = 3 sqrt(8)
    assert tuner.penalty(model).item() == pytest.approx(0.25 * 3 * 8**0.5 / 4)


@pytest.mark.parametrize(("first", "last"), [(10, 0), (1, 12), (5, 5)])
def test_a_schedule_beyond_the_run_is_refused(first, last):
    with pytest.raises(UsageError) as caught:
        create("tuner", "adalora", {"adalora_tinit": first, "adalora_tfinal": last}, run_context(steps=10))
    assert "leave none of the 10 steps of this run to reduce ranks in" in caught.value.problem
    assert f"train for at least {first + last + 1} steps" in caught.value.fix


def test_a_target_above_the_start_is_refused():
    with pytest.raises(UsageError, match="--adalora_target_r 8 is more than --adalora_init_r 4"):
        create("tuner", "adalora", {"adalora_init_r": 4})


def test_one_step_is_too_few_and_two_are_enough(prepare):
    with pytest.raises(UsageError, match="none of the 1 steps"):
        prepare(steps=1)
    tuner = create("tuner", "adalora", {"target_modules": ["q_proj"]}, run_context(steps=2))
    model = prepare(target_modules=["q_proj"], steps=2)
    Training(tuner, model, learning_rate=1e-2).fit(2)
    assert sum(values(model)) == 8 * LAYERS
