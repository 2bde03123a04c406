"""The tuner `llamapro`: the kit, where layers are inserted, and that several families stay what they were."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from llmtune.errors import CheckpointError, UsageError
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, tiny_model
from llmtune.testing.tuner import fit, logits, trainable

LAYERS = 6
FAMILIES = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3},
    "gemma2": {"head_dim": 8, "sliding_window": 4},
    "phi3": {"pad_token_id": 0},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
    "falcon": {},
    "bloom": {},
    "mamba": {},
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_llamapro" / "llmtune-plugin.toml"


class TestLlamapro(TunerTests):
    several_adapters = False

    @pytest.fixture
    def name(self):
        return "llamapro"

    @pytest.fixture
    def options(self):
        return {"llamapro_num_new_blocks": 2}


class TestSeveralInOnePlace(TestLlamapro):
    @pytest.fixture
    def options(self):
        return {"llamapro_num_new_blocks": 2, "llamapro_num_groups": 1}


def tiny(family, **changes):
    """A random model of `LAYERS` layers; biases and norms are random too, so that forgotten ones show."""
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": 99,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.2,
            **FAMILIES.get(family, {}),
            **changes,
        },
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def expanded(model, blocks=2, groups=None):
    options = {"llamapro_num_new_blocks": blocks, "llamapro_num_groups": groups}
    return create("tuner", "llamapro", options).prepare(model)


def order(model):
    """For each layer of the expanded model, the layer whose input norm it has; new ones in brackets."""
    names = [layer.input_layernorm.weight[0].item() for layer in model.model.layers]
    return [
        [int(name)] if hasattr(layer, "copied_from") else int(name)
        for name, layer in zip(names, model.model.layers, strict=True)
    ]


class TestPlaces:
    @pytest.mark.parametrize(
        ("blocks", "groups", "expected"),
        [
            (2, None, [0, 1, 2, [2], 3, 4, 5, [5]]),
            (2, 1, [0, 1, 2, 3, 4, 5, [4], [5]]),
            (4, 2, [0, 1, 2, [1], [2], 3, 4, 5, [4], [5]]),
            (6, 3, [0, 1, [0], [1], 2, 3, [2], [3], 4, 5, [4], [5]]),
            (1, None, [0, 1, 2, 3, 4, 5, [5]]),
        ],
    )
    def test_each_group_is_followed_by_copies_of_its_last_layers(self, blocks, groups, expected):
        model = tiny("llama")
        for number, layer in enumerate(model.model.layers):
            layer.input_layernorm.weight.data.fill_(number)
        assert order(expanded(model, blocks, groups)) == expected

    @pytest.mark.parametrize("groups", [4, 5, 12])
    def test_groups_that_do_not_divide_the_layers_are_refused(self, groups):
        with pytest.raises(UsageError) as caught:
            expanded(tiny("llama"), blocks=groups)
        assert f"--llamapro_num_groups {groups} does not divide the {LAYERS} layers" in caught.value.problem
        assert caught.value.fix == "choose one of 1, 2, 3, 6"

    def test_more_copies_than_a_group_has_layers_are_refused(self):
        with pytest.raises(UsageError, match="asks for 7 copies after each 6 layers"):
            expanded(tiny("llama"), blocks=7, groups=1)

    def test_groups_that_do_not_divide_the_new_blocks_are_refused_with_the_options(self):
        with pytest.raises(UsageError, match="--llamapro_num_groups 3 does not divide --llamapro_num_new_blocks 4"):
            create("tuner", "llamapro", {"llamapro_num_new_blocks": 4, "llamapro_num_groups": 3})

    def test_it_is_refused_without_weights(self):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(tiny("llama").config)
            with pytest.raises(UsageError, match="does not divide"):
                expanded(model, blocks=4)


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    @staticmethod
    def build(family):
        return expanded(tiny(family))

    def test_a_fresh_model_is_the_base(self, family):
        assert torch.equal(logits(self.build(family)), logits(tiny(family)))

    def test_generation_with_and_without_a_cache_agree(self, family):
        model = self.build(family)
        fit(model, steps=2, learning_rate=1e-2)
        ids = torch.arange(3, 11)[None]
        cached, whole = (
            model.eval().generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=8,
                min_new_tokens=8,
                do_sample=False,
                use_cache=use,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=0,
            )
            for use in (True, False)
        )
        assert torch.equal(cached.sequences, whole.sequences)
        torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), atol=1e-4, rtol=1e-4)

    def test_the_merged_folder_is_a_model_with_more_layers(self, family, tmp_path):
        model = self.build(family)
        fit(model, steps=2, learning_rate=1e-2)
        expected = logits(model)
        create("tuner", "llamapro").merge(model).save_pretrained(tmp_path)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert plain.config.num_hidden_layers == LAYERS + 2
        assert torch.equal(logits(plain), expected)
        assert "llamapro" not in (tmp_path / "config.json").read_text()

    def test_every_tensor_of_a_new_layer_learns(self, family):
        """The gradient of all but the zeroed projections starts at zero, but not for long."""
        model = self.build(family)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        fit(model, steps=3, learning_rate=1e-2)
        after = dict(model.named_parameters())
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert changed == trainable(model)


def test_as_many_parameters_are_trained_as_the_new_layers_have():
    base = tiny("llama")
    hidden, mlp, key_value = 32, 64, 16
    layer = 2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * mlp + 2 * hidden
    model = expanded(base, blocks=3)
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == 3 * layer


class TestCheckpoints:
    @pytest.fixture
    def model(self):
        model = expanded(tiny("llama"))
        fit(model, steps=2, learning_rate=1e-2)
        return model

    def test_it_holds_the_new_layers_alone(self, model, tmp_path):
        create("tuner", "llamapro").save(model, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "llamapro_config.json",
            "llamapro_model.safetensors",
        ]
        with safe_open(tmp_path / "llamapro_model.safetensors", framework="pt") as stored:
            assert set(stored.keys()) == trainable(model)
        size = 4 * sum(value.numel() for value in model.parameters() if value.requires_grad)
        assert size < (tmp_path / "llamapro_model.safetensors").stat().st_size < size + 4096
        assert json.loads((tmp_path / "llamapro_config.json").read_text()) == {
            "num_base_layers": LAYERS,
            "new_layers": [{"index": 3, "copied_from": 2}, {"index": 7, "copied_from": 5}],
        }

    def test_another_base_is_refused(self, model, tmp_path):
        create("tuner", "llamapro").save(model, tmp_path)
        with pytest.raises(CheckpointError, match="expands a model of 6 layers, this one has 4"):
            create("tuner", "llamapro").load(tiny("llama", num_hidden_layers=4), tmp_path)
        with pytest.raises(CheckpointError, match="does not fit this base model"):
            create("tuner", "llamapro").load(tiny("llama", intermediate_size=48), tmp_path)

    def test_a_damaged_config_is_refused(self, tmp_path):
        for text in ("{", "[]", '{"num_base_layers": 6}'):
            (tmp_path / "llamapro_config.json").write_text(text)
            with pytest.raises(CheckpointError, match="is damaged"):
                create("tuner", "llamapro").load(tiny("llama"), tmp_path)

    def test_missing_weights_are_refused(self, model, tmp_path):
        create("tuner", "llamapro").save(model, tmp_path)
        (tmp_path / "llamapro_model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="is not complete"):
            create("tuner", "llamapro").load(tiny("llama"), tmp_path)


class TestRefusals:
    def test_a_model_whose_layers_cannot_be_the_identity(self):
        with pytest.raises(UsageError, match="changes its input"):
            expanded(tiny("opt", do_layer_norm_before=False))

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
            ("deepseek_v3", {"first_k_dense_replace": 3, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}),
        ],
    )
    def test_a_model_whose_layers_depend_on_their_place(self, family, changes):
        with pytest.raises(UsageError, match="depend on their place"):
            expanded(tiny(family, **changes))

    def test_a_model_without_a_list_of_layers(self):
        model = tiny("llama")
        model.model.layers = torch.nn.Sequential(*model.model.layers)
        with pytest.raises(UsageError, match="has no list of 6 decoder layers"):
            expanded(model)


def test_a_half_precision_base_trains(tmp_path):
    base = load_tiny(tiny_model(tmp_path), dtype="bf16").model
    losses = fit(expanded(base), steps=10, learning_rate=1e-2)
    assert losses[-1] < losses[0]


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = expanded(tiny("llama"))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        gradients.append([value.grad for value in model.parameters() if value.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
