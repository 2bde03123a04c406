"""The tuner `adapter`: the kit, and where bottlenecks are and what they compute."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN

from llmtune.errors import CheckpointError, UsageError
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits, trainable

HIDDEN, LAYERS = 32, 2
MLPS = {
    "llama": "model.layers.{}.mlp",
    "gemma2": "model.layers.{}.mlp",
    "gpt2": "transformer.h.{}.mlp",
    "opt": "model.decoder.layers.{}.fc2",
    "falcon": "transformer.h.{}.mlp",
    "mixtral": "model.layers.{}.mlp",
    "gpt_oss": "model.layers.{}.mlp",
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_adapter" / "llmtune-plugin.toml"


class TestAdapter(TunerTests):
    mergeable = False

    @pytest.fixture
    def name(self):
        return "adapter"


class TestShortRelu(TestAdapter):
    """Other options than the defaults, which are what it is loaded with."""

    @pytest.fixture
    def options(self):
        return {"adapter_length": 48, "adapter_act": "relu"}


def tiny(family, **changes):
    options = {
        "vocab_size": 99,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        **({"ffn_dim": 64, "word_embed_proj_dim": HIDDEN} if family == "opt" else {}),
        **({"head_dim": 8} if family in ("gemma2", "gpt_oss") else {}),
        **({"num_local_experts": 4} if family in ("mixtral", "gpt_oss") else {}),
        **changes,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options)).eval()


def adapted(family="llama", **options):
    torch.manual_seed(0)
    return create("tuner", "adapter", options).prepare(tiny(family))


@pytest.mark.parametrize("family", MLPS)
class TestFamilies:
    def test_each_mlp_has_a_bottleneck(self, family):
        expected = {
            f"{MLPS[family].format(layer)}.adapters.0.{part}"
            for layer in range(LAYERS)
            for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        assert trainable(adapted(family)) == expected

    def test_a_fresh_model_is_the_base_and_learns(self, family):
        model = adapted(family)
        assert torch.equal(logits(model), logits(tiny(family)))
        losses = fit(model, steps=10, learning_rate=1e-2)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("length", [1, 7, 128])
def test_each_layer_trains_two_matrices_and_two_biases(length):
    """Section 2.1: 2 m d + d + m for width d and length m."""
    count = sum(value.numel() for value in adapted(adapter_length=length).parameters() if value.requires_grad)
    assert count == LAYERS * (2 * length * HIDDEN + HIDDEN + length)


def test_it_adds_what_the_paper_says():
    model = adapted(adapter_length=5, adapter_act="silu")
    mlp = model.model.layers[0].mlp
    one = mlp.adapters[0]
    torch.nn.init.normal_(one.up.weight)
    torch.nn.init.normal_(one.up.bias)
    x = torch.randn(3, HIDDEN)
    base = mlp.forward(x)
    hidden = torch.nn.functional.silu(base @ one.down.weight.T + one.down.bias)
    torch.testing.assert_close(mlp(x), base + hidden @ one.up.weight.T + one.up.bias)


def test_down_starts_small_and_up_at_zero():
    one = adapted(adapter_length=512).model.layers[0].mlp.adapters[0]
    assert one.down.weight.abs().max() <= 0.02
    assert one.down.weight.std().item() == pytest.approx(0.0088, rel=0.05)  # of a normal cut off at two deviations
    assert not any(torch.count_nonzero(start) for start in (one.down.bias, one.up.weight, one.up.bias))


class TestActivation:
    # xielu is a kernel of its own for another model.
    @pytest.mark.parametrize("act", sorted(set(ACT2FN) - {"xielu"}))
    def test_any_of_transformers_trains(self, act):
        model = adapted(adapter_act=act)
        losses = fit(model, steps=3, learning_rate=1e-2)
        assert losses[-1] < losses[0]

    def test_an_unknown_one_is_refused_with_the_options(self):
        with pytest.raises(UsageError) as caught:
            create("tuner", "adapter", {"adapter_act": "glu"})
        assert caught.value.problem == "--adapter_act glu: transformers has no such activation"
        assert "gelu" in caught.value.fix


class TestDtype:
    def test_bottlenecks_are_fp32_over_a_bf16_base(self, tmp_path):
        model = create("tuner", "adapter").prepare(load_tiny(tiny_model(tmp_path), dtype="bf16").model)
        assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
        assert {value.dtype for value in model.parameters() if not value.requires_grad} == {torch.bfloat16}
        losses = fit(model, steps=20, learning_rate=1e-2)
        assert losses[-1] < losses[0]

    def test_they_come_back_bit_for_bit_over_bf16(self, tmp_path):
        folder, tuner = tiny_model(tmp_path / "base"), create("tuner", "adapter")
        model = tuner.prepare(load_tiny(folder, dtype="bf16").model)
        fit(model, steps=3, learning_rate=1e-2)
        tuner.save(model, tmp_path / "saved")
        again = tuner.load(load_tiny(folder, dtype="bf16").model, tmp_path / "saved")
        assert torch.equal(logits(again), logits(model))


class TestCheckpoints:
    def test_it_holds_the_bottlenecks_alone(self, tmp_path):
        create("tuner", "adapter").save(adapted(adapter_length=8, adapter_act="relu"), tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
            "adapter_type": "bottleneck",
            "adapter_length": 8,
            "adapter_act": "relu",
        }
        with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as stored:
            assert len(stored.keys()) == 4 * LAYERS
            assert "model.layers.1.mlp.adapter.up.weight" in stored.keys()  # noqa: SIM118  (no mapping)
        size = 4 * LAYERS * (2 * 8 * HIDDEN + HIDDEN + 8)
        assert size < (tmp_path / "adapter_model.safetensors").stat().st_size < size + 2048

    def test_adapters_of_different_shapes_share_a_base(self, tmp_path):
        answers = {}
        for name, options in {"a": {"adapter_length": 8}, "b.2": {"adapter_length": 3, "adapter_act": "relu"}}.items():
            model = adapted(**options)
            fit(model, steps=3, learning_rate=1e-2)
            create("tuner", "adapter").save(model, tmp_path / name)
            answers[name] = logits(model)
        tuner = create("tuner", "adapter")
        model = tuner.add(tuner.load(tiny("llama"), tmp_path / "a"), tmp_path / "b.2", "b.2")
        assert not trainable(model)
        for choice, name in ((None, "a"), ("b.2", "b.2"), (None, "a")):
            tuner.choose(model, choice)
            assert torch.equal(logits(model), answers[name])

    def test_an_adapter_of_another_kind_is_refused(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        with pytest.raises(CheckpointError, match="no bottleneck adapter but one of type LORA"):
            create("tuner", "adapter").load(tiny("llama"), tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", '{"adapter_type": "bottleneck"}'])
    def test_a_damaged_config_is_refused(self, tmp_path, text):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match="is damaged"):
            create("tuner", "adapter").load(tiny("llama"), tmp_path)

    def test_another_base_and_missing_weights_are_refused(self, tmp_path):
        create("tuner", "adapter").save(adapted(), tmp_path)
        with pytest.raises(CheckpointError, match="does not fit this base model"):
            create("tuner", "adapter").load(tiny("llama", num_hidden_layers=3), tmp_path)
        (tmp_path / "adapter_model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="is not complete"):
            create("tuner", "adapter").load(tiny("llama"), tmp_path)


def test_merging_is_refused_with_the_reason():
    with pytest.raises(UsageError) as caught:
        create("tuner", "adapter").merge(adapted())
    assert "not linear" in caught.value.problem
    assert "llmtune infer --ckpt_dir" in caught.value.fix


@pytest.mark.parametrize(
    ("command", "flags", "refused"),
    [
        ("merge-lora", {}, True),
        ("export", {"merge_lora": True}, True),
        ("infer", {"merge_lora": True}, True),
        ("infer", {"merge_lora": False}, False),
    ],
)
def test_merging_is_refused_before_the_base_is_loaded(command, flags, refused):
    from llmtune_plugin_adapter.plugin import llmtune_check_plan

    assert ["not linear" in problem for problem in llmtune_check_plan(run_context(command).plan, flags)] == [
        True
    ] * refused


def test_a_model_without_mlps_is_refused():
    with pytest.raises(UsageError, match="MambaBlock of MambaForCausalLM has no MLP"):
        adapted("mamba")


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = adapted()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        gradients.append([value.grad for value in model.parameters() if value.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
