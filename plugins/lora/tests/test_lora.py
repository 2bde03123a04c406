"""The tuner `lora`: the kit, and which layers get adapters of which type."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from llmtune.errors import CheckpointError, UsageError
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tiny import HIDDEN, LAYERS, SHAPES
from llmtune.testing.tuner import fit, logits, trainable

FAMILY = ("q_proj", "v_proj")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_lora" / "llmtune-plugin.toml"


class LoraTests(TunerTests):
    @pytest.fixture
    def name(self):
        return "lora"

    @pytest.fixture
    def run(self):
        return run_context(target_modules=FAMILY)


class TestLora(LoraTests):
    pass


class TestLoraWithWholeLayers(LoraTests):
    @pytest.fixture
    def options(self):
        return {"modules_to_save": ["LN", "EMBEDDING"], "lora_rank": 4}


class TestDora(LoraTests):
    @pytest.fixture
    def options(self):
        return {"target_modules": ["ALL"], "use_dora": True}


class TestPissa(LoraTests):
    """PiSSA takes the adapter's start out of the base weights; together they are the base again, but for rounding."""

    starts_as_identity = False
    several_adapters = False

    @pytest.fixture
    def options(self):
        return {"target_modules": ["ALL"], "init_lora_weights": "pissa"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def prepare(folder):
    def prepare(dtype="fp32", family=FAMILY, **options):
        tuner = create("tuner", "lora", options, run_context(target_modules=family))
        torch.manual_seed(0)
        return tuner.prepare(load_tiny(folder, dtype=dtype).model)

    return prepare


def adapted(model):
    """Last parts of the names of the layers that have adapters."""
    return {name.split(".lora_A")[0].rpartition(".")[2] for name in trainable(model) if ".lora_A" in name}


class TestTargetModules:
    def test_default_is_the_list_of_the_family(self, prepare):
        assert adapted(prepare()) == set(FAMILY)

    def test_auto_is_another_word_for_default(self, prepare):
        assert adapted(prepare(target_modules=["AUTO"])) == set(FAMILY)

    def test_default_of_a_family_without_a_list_is_every_linear_layer(self, prepare):
        assert adapted(prepare(family=())) == set(SHAPES)

    def test_all_is_every_linear_layer_but_the_head(self, prepare):
        assert adapted(prepare(target_modules=["ALL"])) == set(SHAPES)

    def test_names_are_taken_as_they_are(self, prepare):
        assert adapted(prepare(target_modules=["o_proj", "up_proj"])) == {"o_proj", "up_proj"}

    def test_words_and_names_add_up(self, prepare):
        assert adapted(prepare(target_modules=["DEFAULT", "down_proj"])) == {*FAMILY, "down_proj"}

    def test_a_longer_name_means_some_of_the_layers(self, prepare):
        model = prepare(target_modules=["layers.1.self_attn.q_proj"])
        assert {name for name in trainable(model) if "lora_A" in name} == {
            "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight"
        }

    def test_a_regular_expression_replaces_the_names(self, prepare):
        model = prepare(target_regex=r".*layers\.0\..*(gate|up)_proj")
        assert adapted(model) == {"gate_proj", "up_proj"}
        assert all(".layers.0." in name for name in trainable(model))

    def test_embedding_adapts_the_input_embedding(self, prepare):
        model = prepare(target_modules=["EMBEDDING"], lora_rank=4)
        assert all("embed_tokens" in name for name in trainable(model))
        assert trainable(model), "the embedding has no adapter"

    def test_an_unknown_name_lists_the_layers_there_are(self, prepare):
        with pytest.raises(UsageError) as caught:
            prepare(target_modules=["c_attn", "q_proj"])
        assert "--target_modules c_attn:" in caught.value.problem
        assert all(name in caught.value.fix for name in SHAPES)

    @pytest.mark.parametrize("regex", ["[", "(q_proj", "*proj", "a{99999999999}"])
    def test_what_is_no_regular_expression_is_refused_with_the_options(self, regex):
        with pytest.raises(UsageError) as caught:
            create("tuner", "lora", {"target_regex": regex})
        assert "--target_regex: is no regular expression: " in caught.value.problem
        assert repr(regex) in caught.value.problem

    def test_a_regular_expression_that_matches_nothing_is_answered_with_the_nearest_layers(self, prepare):
        with pytest.raises(UsageError) as caught:
            prepare(target_regex=r"layers\.0\.mlp\.gate_prj")
        assert r"--target_regex 'layers\\.0\\.mlp\\.gate_prj': no layer" in caught.value.problem
        assert "gate_proj" in caught.value.fix
        assert "v_proj" not in caught.value.fix

    def test_all_linear_layers_are_listed_when_none_is_near(self, prepare):
        with pytest.raises(UsageError) as caught:
            prepare(target_regex="attention")
        assert all(name in caught.value.fix for name in SHAPES)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"target_modules": []}, "--target_modules: it names no layer"),
            ({"target_modules": ["input_layernorm"]}, "input_layernorm: LoRA cannot adapt layers of type LlamaRMSNorm"),
            ({"target_modules": ["layers.0"]}, "--target_modules layers.0: LoRA cannot adapt"),
            ({"target_regex": ".*norm"}, "--target_regex '.*norm': LoRA cannot adapt"),
            ({"target_modules": ["q_proj"], "modules_to_save": ["q_proj"]}, "--target_modules q_proj: No modules"),
        ],
    )
    def test_layers_that_cannot_be_adapted_are_refused_in_one_line(self, prepare, options, problem):
        with pytest.raises(UsageError) as caught:
            prepare(**options)
        assert problem in caught.value.problem
        assert "\n" not in caught.value.problem
        assert "q_proj" in caught.value.fix


class TestModulesToSave:
    def test_ln_trains_every_norm(self, prepare):
        model = prepare(modules_to_save=["LN"])
        whole = {name for name in trainable(model) if "modules_to_save" in name}
        assert len(whole) == 2 * LAYERS + 1
        assert all("norm" in name for name in whole)

    def test_embedding_trains_the_input_embedding(self, prepare):
        model = prepare(modules_to_save=["EMBEDDING"])
        assert {name for name in trainable(model) if "modules_to_save" in name} == {
            "base_model.model.model.embed_tokens.modules_to_save.default.weight"
        }

    def test_an_unknown_name_is_refused(self, prepare):
        with pytest.raises(UsageError, match="--modules_to_save ln_f"):
            prepare(modules_to_save=["ln_f"])


class TestSize:
    @pytest.mark.parametrize("rank", [1, 8])
    @pytest.mark.parametrize("targets", [["q_proj"], ["ALL"], ["k_proj", "down_proj"]])
    def test_each_target_trains_rank_times_in_plus_out(self, prepare, rank, targets):
        model = prepare(target_modules=targets, lora_rank=rank)
        names = SHAPES if targets == ["ALL"] else targets
        expected = LAYERS * sum(rank * sum(SHAPES[name]) for name in names)
        assert sum(value.numel() for value in model.parameters() if value.requires_grad) == expected

    def test_biases_train_only_when_asked(self, folder):
        for value, count in (("none", 0), ("all", 1)):
            base = load_tiny(folder).model
            base.model.layers[0].self_attn.o_proj.bias = nn.Parameter(torch.zeros(HIDDEN))
            model = create("tuner", "lora", {"target_modules": ["q_proj"], "lora_bias_trainable": value}).prepare(base)
            assert sum(name.endswith("o_proj.bias") for name in trainable(model)) == count


class TestScale:
    @pytest.mark.parametrize(("options", "expected"), [({}, 32 / 4), ({"use_rslora": True}, 32 / math.sqrt(4))])
    def test_the_update_is_scaled_by_alpha_over_rank_or_its_root(self, prepare, options, expected):
        model = prepare(target_modules=["q_proj"], lora_rank=4, lora_alpha=32, **options)
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        nn.init.normal_(layer.lora_B["default"].weight)
        inputs = torch.randn(3, HIDDEN)
        update = inputs @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        model.eval()
        torch.testing.assert_close(layer(inputs) - layer.base_layer(inputs), expected * update, atol=1e-4, rtol=1e-4)


class TestInit:
    @staticmethod
    def pair(model):
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        return layer.lora_A["default"].weight, layer.lora_B["default"].weight

    @pytest.mark.parametrize("init", ["true", "gaussian", "GAUSSIAN"])
    def test_b_starts_at_zero_and_a_does_not(self, prepare, init):
        a, b = self.pair(prepare(target_modules=["ALL"], init_lora_weights=init))
        assert torch.count_nonzero(b) == 0
        assert a.std() > 0

    def test_gaussian_has_a_spread_of_one_over_rank(self, prepare):
        a, _ = self.pair(prepare(target_modules=["ALL"], init_lora_weights="gaussian", lora_rank=8))
        assert a.std().item() == pytest.approx(1 / 8, rel=0.2)

    def test_false_starts_with_a_random_update(self, prepare, folder):
        model = prepare(target_modules=["ALL"], init_lora_weights="false")
        assert torch.count_nonzero(self.pair(model)[1]) > 0
        assert not torch.equal(logits(model), logits(load_tiny(folder).model))

    def test_pissa_and_what_it_leaves_are_the_base(self, prepare, folder):
        model = prepare(target_modules=["ALL"], init_lora_weights="pissa")
        torch.testing.assert_close(logits(model), logits(load_tiny(folder).model), rtol=0, atol=1e-5)

    def test_pissa_starts_with_the_largest_singular_values(self, prepare, folder):
        a, b = self.pair(prepare(target_modules=["ALL"], init_lora_weights="pissa", lora_rank=8, lora_alpha=8))
        weight = load_tiny(folder).model.model.layers[0].self_attn.q_proj.weight
        largest = torch.linalg.svdvals(weight)[:8]
        torch.testing.assert_close(torch.linalg.svdvals(b @ a)[:8], largest, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("trained", [False, True])
    @pytest.mark.parametrize("init", ["true", "false", "gaussian", "pissa"])
    def test_each_comes_back_from_a_file_over_a_fresh_base(self, prepare, folder, tmp_path, init, trained):
        model = prepare(target_modules=["ALL"], init_lora_weights=init)
        if trained:
            fit(model, steps=3, learning_rate=1e-2)
        tuner = create("tuner", "lora")
        tuner.save(model, tmp_path)
        torch.manual_seed(1)  # another process has other random numbers
        assert torch.equal(logits(tuner.load(load_tiny(folder).model, tmp_path)), logits(model))

    @pytest.mark.parametrize("init", ["pissa_niter_4", "PISSA_NITER_16"])
    def test_a_start_that_cannot_be_repeated_is_refused(self, prepare, init):
        with pytest.raises(UsageError) as caught:
            prepare(init_lora_weights=init)
        assert caught.value.problem == f"--init_lora_weights {init.lower()} is not available yet"
        assert "use --init_lora_weights pissa:" in caught.value.fix

    @pytest.mark.parametrize("init", ["zeros", "pissa_niter_", "pissa_niter_x", ""])
    def test_another_word_is_refused(self, prepare, init):
        with pytest.raises(UsageError, match="--init_lora_weights: must be true, false, gaussian or pissa"):
            prepare(init_lora_weights=init)


class TestDtype:
    def test_auto_is_fp32_over_a_bf16_base(self, prepare):
        model = prepare(dtype="bf16")
        assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
        assert {value.dtype for value in model.parameters() if not value.requires_grad} == {torch.bfloat16}

    def test_small_steps_on_whole_layers_are_not_lost(self, prepare):
        """A norm's weights start at 1, where the next bf16 number is 0.004 away and a step is 1e-4."""
        model = prepare(dtype="bf16", modules_to_save=["LN"])
        fit(model, steps=10, learning_rate=1e-4)
        norms = [value for name, value in model.named_parameters() if "modules_to_save" in name]
        assert all(torch.count_nonzero(value.float() != 1) > 0 for value in norms)

    @pytest.mark.parametrize(("word", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
    def test_a_type_that_was_asked_for_is_kept(self, prepare, word, dtype):
        model = prepare(dtype="bf16", lora_dtype=word)
        assert {value.dtype for value in model.parameters() if value.requires_grad} == {dtype}

    @pytest.mark.parametrize("base", ["bf16", "fp32"])
    @pytest.mark.parametrize("word", ["AUTO", "bf16", "fp16", "fp32"])
    def test_a_resumed_run_goes_on_in_the_type_it_started_in(self, prepare, folder, tmp_path, word, base):
        options = {"lora_dtype": word, "modules_to_save": ["LN"], "target_modules": ["ALL"]}
        model = prepare(dtype=base, **options)
        tuner = create("tuner", "lora", options)
        tuner.save(model, tmp_path)
        again = tuner.load(load_tiny(folder, dtype=base).model, tmp_path, trainable=True)
        before, after = (
            {name: value.dtype for name, value in one.named_parameters() if value.requires_grad}
            for one in (model, again)
        )
        assert after == before

    @pytest.mark.parametrize("lora_dtype", ["AUTO", "bf16", "fp32"])
    @pytest.mark.parametrize("options", [{}, {"modules_to_save": ["LN"]}, {"modules_to_save": ["EMBEDDING"]}])
    def test_a_bf16_base_trains(self, prepare, lora_dtype, options):
        options = {**options, "lora_dtype": lora_dtype}
        losses = fit(prepare(dtype="bf16", target_modules=["ALL"], **options), steps=20, learning_rate=1e-2)
        assert losses[-1] < losses[0]

    def test_fp32_adapters_over_bf16_come_back_bit_for_bit(self, prepare, folder, tmp_path):
        model = prepare(dtype="bf16")
        fit(model, steps=3, learning_rate=1e-2)
        tuner = create("tuner", "lora")
        tuner.save(model, tmp_path)
        again = tuner.load(load_tiny(folder, dtype="bf16").model, tmp_path)
        assert torch.equal(logits(again), logits(model))


def test_the_adapter_folder_is_what_peft_reads(prepare, tmp_path):
    create("tuner", "lora").save(prepare(lora_rank=3), tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (stored["peft_type"], stored["r"], sorted(stored["target_modules"])) == ("LORA", 3, sorted(FAMILY))


def test_an_adapter_whose_start_cannot_be_repeated_is_refused(folder, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "init_lora_weights": "pissa_niter_16"}')
    tuner = create("tuner", "lora")
    with pytest.raises(CheckpointError, match="pissa_niter_16, which cannot be repeated"):
        tuner.load(load_tiny(folder).model, tmp_path)
