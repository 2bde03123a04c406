"""The tuner `longlora`: the kit, and which tokens attend to which in training."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from llmtune.errors import UsageError
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits, trainable
from llmtune_plugin_longlora._attention import shifted_sparse_attention

HIDDEN, KEY_VALUE, LAYERS, VOCABULARY = 32, 16, 2, 99
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "phi3": {},
    "gpt2": {},
    "gpt_oss": {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4},
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_longlora" / "llmtune-plugin.toml"


class TestLonglora(TunerTests):
    @pytest.fixture
    def name(self):
        return "longlora"


class TestFixedGroups(TestLonglora):
    @pytest.fixture
    def options(self):
        return {"longlora_group_size": 7, "lora_rank": 4}


def tiny(family="llama", attention="sdpa", **changes):
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **FAMILIES.get(family, {}),
        **({"attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0} if family in ("gpt2", "phi3") else {}),
        **changes,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **options)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def prepared(model=None, **options):
    torch.manual_seed(0)
    return create("tuner", "longlora", {"lora_dropout": 0.0, **options}).prepare(model or tiny())


class Attention:
    """What attention modules of transformers have, with its heads."""

    def __init__(self, heads, key_heads):
        self.num_key_value_groups, self.is_causal, self.training = heads // key_heads, True, True


def visible(length, size, heads=4):
    """Which query sees which key in the shifted sparse attention of the paper, causal: (heads, T, T)."""
    tokens = torch.arange(length)
    padded = math.ceil(length / size) * size
    straight = tokens // size
    shifted = ((tokens + padded - size // 2) % padded) // size
    groups = torch.stack([straight] * (heads // 2) + [shifted] * (heads - heads // 2))
    return (groups[:, :, None] == groups[:, None, :]) & (tokens[:, None] >= tokens[None, :])


def random_inputs(length, heads=4, key_heads=2, width=8):
    torch.manual_seed(length)
    return (torch.randn(2, count, length, width) for count in (heads, key_heads, key_heads))


class TestWhoSeesWhom:
    @pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (4, 1), (9, 3), (6, 3), (5, 5)])
    @pytest.mark.parametrize(("length", "size"), [(16, 4), (17, 4), (19, 4), (16, 5), (23, 8), (4, 8), (8, 8)])
    def test_it_is_full_attention_with_the_mask_of_the_paper(self, heads, key_heads, length, size):
        query, key, value = random_inputs(length, heads, key_heads)
        found, _ = shifted_sparse_attention(
            Attention(heads, key_heads), query, key, value, None, inner="sdpa", group_size=size
        )
        key, value = (tensor.repeat_interleave(heads // key_heads, dim=1) for tensor in (key, value))
        mask = visible(length, size, heads) if size < length else visible(length, length, 2)[:1]
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("length", [3, 8, 22, 64, 67])
    def test_a_group_is_a_quarter_of_the_length_by_default(self, length):
        query, key, value = random_inputs(length)
        found, default = (
            shifted_sparse_attention(Attention(4, 2), query, key, value, None, inner="sdpa", group_size=size)[0]
            for size in (2 * math.ceil(length / 8), None)
        )
        assert torch.equal(found, default)

    def test_it_is_full_attention_outside_of_training(self):
        query, key, value = random_inputs(16)
        module = Attention(4, 2)
        module.training = False
        found, _ = shifted_sparse_attention(module, query, key, value, None, inner="sdpa", group_size=4)
        expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        assert torch.equal(found, expected.transpose(1, 2))

    @pytest.mark.parametrize(("length", "size"), [(16, 4), (19, 4), (16, 5)])
    @pytest.mark.parametrize("boolean", [True, False])
    @pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (9, 3)])
    def test_a_mask_holds_inside_of_groups(self, length, size, boolean, heads, key_heads):
        query, key, value = random_inputs(length, heads, key_heads)
        sample = torch.arange(length) // 6
        allowed = (sample[:, None] == sample[None, :]) & visible(length, length, 2)[0]
        mask = allowed[None, None]
        if not boolean:
            mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        found, _ = shifted_sparse_attention(
            Attention(heads, key_heads), query, key, value, mask, inner="sdpa", group_size=size
        )
        key, value = (tensor.repeat_interleave(heads // key_heads, dim=1) for tensor in (key, value))
        mask = allowed & visible(length, size, heads)
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)

    def test_padding_gives_finite_numbers_and_gradients(self):
        query, key, value = (tensor.requires_grad_() for tensor in random_inputs(18, 4, 4))
        mask = (visible(18, 18, 2)[0] & (torch.arange(18) < 5))[None, None]  # 13 of 18 tokens are padding
        found, _ = shifted_sparse_attention(Attention(4, 4), query, key, value, mask, inner="sdpa", group_size=4)
        found[:, :5].sum().backward()
        assert all(torch.isfinite(tensor).all() for tensor in (found, query.grad, key.grad, value.grad))


class TestCost:
    @staticmethod
    def entries(monkeypatch, length, size):
        """Number of scores that the inner attention computes, for one head of one text."""
        counted = []
        original = F.scaled_dot_product_attention

        def count(query, key, *args, **kwargs):
            counted.append(query.shape[0] * query.shape[2] * key.shape[2])
            return original(query, key, *args, **kwargs)

        model = prepared(tiny(num_hidden_layers=1), longlora_group_size=size).train()
        with monkeypatch.context() as patched:
            patched.setattr(F, "scaled_dot_product_attention", count)
            model(input_ids=torch.ones(1, length, dtype=torch.long))
        assert len(counted) == 1
        return counted[0]

    def test_scores_grow_linearly_at_a_fixed_group_size(self, monkeypatch):
        for length in (64, 128, 256, 512):
            assert self.entries(monkeypatch, length, 16) == 16 * length

    def test_scores_are_a_quarter_by_default(self, monkeypatch):
        assert self.entries(monkeypatch, 256, None) == 256 * 256 / 4


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft sets it by itself for GPT-2's Conv1D, and says so
@pytest.mark.parametrize(
    ("family", "attention"),
    # GPT-OSS, whose attention has sinks, knows no sdpa.
    [(family, kind) for family in FAMILIES for kind in ("sdpa", "eager") if (family, kind) != ("gpt_oss", "sdpa")],
)
class TestFamilies:
    def test_a_token_changes_no_earlier_logit_while_training(self, family, attention):
        model = self.build(family, attention).train()
        ids = torch.randint(3, VOCABULARY, (1, 32), generator=torch.Generator().manual_seed(0))
        other = ids.clone()
        other[0, 29] = (other[0, 29] + 40) % VOCABULARY
        first, second = (model(input_ids=one).logits[0] for one in (ids, other))
        assert torch.equal(first[:29], second[:29])
        assert not torch.equal(first[29:], second[29:])

    def test_training_is_in_groups_and_answering_is_not(self, family, attention):
        model = self.build(family, attention)
        base = logits(tiny(family, attention))
        assert torch.equal(logits(model), base)
        ids = torch.arange(32)[None]
        with torch.no_grad():
            assert not torch.allclose(model.train()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)

    def test_samples_of_a_pack_stay_apart_while_training(self, family, attention):
        if family == "gpt_oss":
            pytest.skip("transformers 5.19 mixes samples of a pack in it without S2-Attn too: --packing is refused")
        model = self.build(family, attention).train()
        lengths = (11, 9, 12)
        ids = torch.arange(32)[None] % 50 + 3
        other = ids.clone()
        other[0, 11:20] += 20
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        first, second = (
            model(input_ids=one, position_ids=positions, use_cache=False).logits[0] for one in (ids, other)
        )
        assert torch.equal(first[:11], second[:11])
        assert torch.equal(first[20:], second[20:])

    def test_rows_of_a_padded_batch_answer_as_alone(self, family, attention):
        """At a fixed group size; a quarter of the length is one of the batch's."""
        model = self.build(family, attention).train()
        ids = torch.arange(40).view(2, 20) + 3
        ids[1, 13:] = 0
        mask = (ids != 0).long()
        both = model(input_ids=ids, attention_mask=mask).logits
        alone = model(input_ids=torch.cat((ids[1:, :13], torch.zeros(1, 3, dtype=torch.long)), dim=1)).logits
        torch.testing.assert_close(both[1, 4:12], alone[0, 4:12], atol=1e-4, rtol=1e-4)
        assert torch.isfinite(both).all()

    @staticmethod
    def build(family, attention):
        return prepared(tiny(family, attention), longlora_group_size=8)


class TestWhatIsTrained:
    def test_lora_embeddings_and_norms(self):
        count = sum(value.numel() for value in prepared(lora_rank=4).parameters() if value.requires_grad)
        mlp = 64
        shapes = 2 * [(HIDDEN, HIDDEN)] + 2 * [(HIDDEN, KEY_VALUE)] + 3 * [(HIDDEN, mlp)]
        lora = LAYERS * sum(4 * (inputs + outputs) for inputs, outputs in shapes)
        assert count == lora + VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN

    def test_nothing_but_lora_where_no_whole_layers_are_asked_for(self):
        assert all("lora_" in name for name in trainable(prepared(modules_to_save=[])))

    def test_lora_is_fp32_over_bf16_unless_asked(self, tmp_path):
        folder = tiny_model(tmp_path)
        for word, dtype in (("AUTO", torch.float32), ("bf16", torch.bfloat16)):
            model = prepared(load_tiny(folder, dtype="bf16").model, lora_dtype=word)
            assert {value.dtype for name, value in model.named_parameters() if "lora_" in name} == {dtype}
            losses = fit(model, steps=5, learning_rate=1e-2)
            assert losses[-1] < losses[0]


class TestStored:
    def test_it_is_a_lora_adapter_that_attends_fully(self, tmp_path):
        model = prepared()
        fit(model, steps=3, learning_rate=1e-2)
        create("tuner", "longlora").save(model, tmp_path)
        for name in ("longlora", "lora"):
            loaded = create("tuner", name).load(tiny(), tmp_path)
            assert loaded.config._attn_implementation == "sdpa"
            assert torch.equal(logits(loaded), logits(model))

    def test_a_checkpoint_holds_what_is_trained(self, tmp_path):
        model = prepared(lora_rank=4)
        create("tuner", "longlora").save(model, tmp_path)
        size = 4 * sum(value.numel() for value in model.parameters() if value.requires_grad)
        assert size < (tmp_path / "adapter_model.safetensors").stat().st_size < size + 16384

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_a_merged_model_attends_as_before(self, attention, tmp_path):
        model = prepared(tiny(attention=attention))
        fit(model, steps=3, learning_rate=1e-3)
        expected = logits(model)
        merged = create("tuner", "longlora").merge(model)
        assert merged.config._attn_implementation == attention
        torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
        assert torch.equal(logits(merged.train()), logits(merged.eval()))

    def test_tied_embeddings_stay_tied(self, tmp_path):
        """One trained matrix is both embedding and head: trained, loaded, merged and loaded again."""
        tuner = create("tuner", "longlora")
        model = prepared(tiny(tie_word_embeddings=True))
        fit(model, steps=3, learning_rate=1e-3)
        expected = logits(model)
        tuner.save(model, tmp_path / "adapter")
        assert torch.equal(logits(tuner.load(tiny(tie_word_embeddings=True), tmp_path / "adapter")), expected)
        merged = tuner.merge(model)
        assert merged.lm_head.weight is merged.model.embed_tokens.weight
        torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
        merged.save_pretrained(tmp_path / "merged")
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), logits(merged))

    def test_a_tied_bf16_base_trains(self):
        losses = fit(prepared(tiny(tie_word_embeddings=True).bfloat16()), steps=5, learning_rate=1e-2)
        assert losses[-1] < losses[0]


class TestHalfPrecision:
    def test_whole_layers_come_back_bit_for_bit_over_bf16(self, tmp_path):
        model = prepared(tiny().bfloat16())
        fit(model, steps=3, learning_rate=1e-3)
        tuner = create("tuner", "longlora")
        tuner.save(model, tmp_path)
        assert torch.equal(logits(tuner.load(tiny().bfloat16(), tmp_path)), logits(model))


class TestRefusals:
    @pytest.mark.parametrize("family", ["bloom", "mamba"])
    def test_a_model_without_the_attention_interface(self, family):
        with pytest.raises(UsageError, match="cannot be replaced"), torch.device("meta"):
            prepared(tiny(family, attention=None))

    def test_flash_attention_before_anything_is_loaded(self):
        from llmtune_plugin_longlora.plugin import llmtune_check_plan

        class Config:
            training = None

            def get(self, flag):
                return flag == "use_flash_attn"

        assert "sdpa is used" in "".join(llmtune_check_plan(run_context().plan, Config()))

    def test_another_implementation(self):
        with pytest.raises(UsageError, match="not made for flex_attention"), torch.device("meta"):
            prepared(tiny(attention="flex_attention"))

    @pytest.mark.parametrize("size", [1, 0, -4])
    def test_groups_of_less_than_two(self, size):
        with pytest.raises(UsageError, match="longlora_group_size"):
            create("tuner", "longlora", {"longlora_group_size": size})


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = prepared()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()(input_ids=torch.arange(24)[None], labels=torch.arange(24)[None]).loss.backward()
        gradients.append([value.grad for value in model.parameters() if value.requires_grad])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
