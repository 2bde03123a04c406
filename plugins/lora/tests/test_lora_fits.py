"""An adapter and the base that it is loaded over or merged into: they fit, or that is said."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from llmtune.errors import CheckpointError, UsageError
from llmtune.model.same_answers import check_same_answers, probe_logits
from llmtune.model.target_layers import frozen_experts
from llmtune.testing import create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit

pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word", "ignore:Setting `save_embedding_layers`")
"""What peft says of such adapters."""


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def lora(**options):
    return create("tuner", "lora", options, run_context(target_modules=("q_proj",)))


def trained(folder, **options):
    torch.manual_seed(0)
    model = lora(**options).prepare(load_tiny(folder).model)
    fit(model, steps=5, learning_rate=0.1)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "EMBEDDING"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["EMBEDDING", "lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["EMBEDDING"]},
    ],
    ids=lambda options: "-".join(options["target_modules" if "target_modules" in options else "modules_to_save"]),
)
def test_an_adapter_of_the_embedding_or_the_head_is_merged_into_a_tied_model(tmp_path, options):
    model = trained(tiny_model(tmp_path / "tied", initializer_range=0.2, tied=True), **options)
    expected = probe_logits(model)
    merged = lora().merge(model)
    torch.testing.assert_close(probe_logits(merged), expected, rtol=0, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(probe_logits(again), expected, rtol=0, atol=1e-4)


def test_a_merge_that_changes_answers_is_refused(tmp_path):
    model = trained(tiny_model(tmp_path / "base", initializer_range=0.2))
    expected = probe_logits(model)
    merged = lora().merge(model)
    check_same_answers(expected, probe_logits(merged), torch.float32, "merging")
    merged.model.layers[0].self_attn.q_proj.weight.data *= 1.1
    with pytest.raises(CheckpointError, match="merging would change what the model answers: its logits differ by"):
        check_same_answers(expected, probe_logits(merged), torch.float32, "merging")


def test_an_adapter_of_a_deeper_model_is_refused(tmp_path):
    lora().save(trained(tiny_model(tmp_path / "deep", layers=4)), tmp_path / "adapter")
    shallow = load_tiny(tiny_model(tmp_path / "shallow"))
    with pytest.raises(CheckpointError, match=r"4 of its 8 tensors have no place in it, first .*layers.2"):
        lora().load(shallow.model, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="4 of its 8 tensors have no place in it"):
        lora().add(trained(tmp_path / "shallow"), tmp_path / "adapter", "other")


def test_an_adapter_of_a_wider_model_is_refused(tmp_path):
    lora().save(trained(tiny_model(tmp_path / "wide", hidden_size=64)), tmp_path / "adapter")
    narrow = load_tiny(tiny_model(tmp_path / "narrow"))
    with pytest.raises(CheckpointError, match=r"does not fit this base model: size mismatch for .*q_proj"):
        lora().load(narrow.model, tmp_path / "adapter")


def test_an_adapter_with_biases_over_layers_without_is_refused(tmp_path):
    lora().save(trained(tiny_model(tmp_path / "base")), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    bias = {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias": torch.zeros(32)}
    save_file({**load_file(file), **bias}, file)
    with pytest.raises(CheckpointError, match=r"1 of its 5 tensors have no place in it, first .*bias"):
        lora().load(load_tiny(tmp_path / "base").model, tmp_path / "adapter")


@pytest.mark.parametrize(
    "layers",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=["trained", "stored", "adapted"],
)
def test_an_adapter_over_a_grown_vocabulary_grows_the_base(tmp_path, layers):
    """As other programs write them: the base is resized, then adapted."""
    model = load_tiny(tiny_model(tmp_path / "base", initializer_range=0.2)).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resize_token_embeddings(262)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **layers))
    fit(adapted, steps=5, learning_rate=0.1)
    expected = probe_logits(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = lora().load(load_tiny(tmp_path / "base").model, tmp_path / "adapter")
    torch.testing.assert_close(probe_logits(loaded), expected, rtol=0, atol=1e-5)


def test_new_vectors_are_the_same_whenever_the_model_is_loaded_and_the_flag_is_named(tmp_path, capsys):
    folder = tiny_model(tmp_path / "base")
    tokenizer = load_tiny(folder).tokenizer
    tokenizer.add_tokens(["<new>", "<other>"])
    tokenizer.save_pretrained(folder)
    first, second = (load_tiny(folder).model.get_input_embeddings().weight for _ in range(2))
    assert len(first) == len(tokenizer)
    assert torch.equal(first, second)
    assert not torch.equal(first[-1], first[-2])
    assert "2 tokens more than the model" in (said := capsys.readouterr().err)
    assert "--modules_to_save EMBEDDING lm_head" in said


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A model whose experts are parameters of three dimensions."""
    config = Qwen3MoeConfig(
        vocab_size=259,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        num_key_value_heads=2,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        mlp_only_layers=[1],
    )
    folder = tiny_model(tmp_path_factory.mktemp("mixture"))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("words", [["ALL"], ["q_proj", "down_proj"], ["up_proj"]], ids=" ".join)
def test_words_that_mean_experts_which_no_adapter_reaches_are_refused(mixture, words):
    with pytest.raises(UsageError, match=f"--target_modules {words[-1]}: the experts of this model") as refused:
        lora(target_modules=words).prepare(load_tiny(mixture).model)
    advised = refused.value.fix.split(" trains")[0].split()[1:]
    assert advised == ["k_proj", "o_proj", "q_proj", "v_proj"]
    lora(target_modules=advised).prepare(load_tiny(mixture).model)


def test_experts_that_stay_as_they_are_are_told_with_their_share(mixture):
    model = load_tiny(mixture).model
    assert frozen_experts(model) == ""
    adapted = lora(target_modules=["q_proj"]).prepare(model)
    experts = sum(one.numel() for name, one in adapted.named_parameters() if ".experts." in name)
    share = experts / sum(one.numel() for one in adapted.parameters())
    assert f"the experts ({share:.0%} of the parameters) stay as they are" in frozen_experts(adapted)
    assert frozen_experts(load_tiny(tiny_model(mixture / "dense")).model) == ""
