"""Models from folders: what must be complete, longer inputs, devices, models that no plugin registered."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, LlamaForCausalLM

from llmtune.config.model import ModelSection
from llmtune.errors import UsageError
from llmtune.interfaces.layout import Layout
from llmtune.model.layout import rename_tensors, split_tensor
from llmtune.model.load import load_pretrained, load_weights
from llmtune.model.memory import bytes_by_size, parameters
from llmtune.model.placement import placement, read_device_map
from llmtune.model.positions import scale_positions
from llmtune.model.resolve import choose_model
from llmtune.model.save import save_published, stored_dtype
from llmtune.plugins.catalogue import discover
from llmtune.specs import LoadOptions, RunPlan
from llmtune.testing import tiny_model

FP32 = LoadOptions(dtype="fp32")


def changed(folder, change):
    """Write the tensors of a folder anew, as `change` leaves them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- what is there must be all that is needed -------------------------------------------------------


def test_a_checkpoint_without_a_weight_is_refused(tmp_path):
    changed(tiny_model(tmp_path), lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UsageError, match=r"lacks 1 of the model's weights, first model.layers.1.mlp.up_proj.weight"):
        load_pretrained(tmp_path, FP32)


def test_a_weight_of_another_shape_is_refused(tmp_path):
    tiny_model(tmp_path)
    changed(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))
    with pytest.raises(UsageError, match=r"1 weights of another shape.*model.norm.weight"):
        load_pretrained(tmp_path, FP32)


def test_a_tensor_without_a_place_is_named(tmp_path, capsys):
    changed(tiny_model(tmp_path), lambda tensors: tensors.update({"model.extra": torch.ones(7)}))
    load_pretrained(tmp_path, FP32)
    assert "1 tensors in" in (said := capsys.readouterr().err)
    assert "model.extra" in said


@pytest.mark.parametrize(("text", "said"), [(None, "config.json is missing"), ("{", "not valid JSON"), ("3", "object")])
def test_a_folder_without_a_config_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        load_pretrained(tmp_path, FP32)


def test_pickled_weights_are_read_only_where_the_user_says_so(tmp_path):
    model = load_pretrained(tiny_model(tmp_path), FP32).model
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pickled \(pytorch_model.bin\)"):
        load_pretrained(tmp_path, FP32)
    again = load_pretrained(tmp_path, LoadOptions(dtype="fp32", pickled_weights=True)).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


class Runs:
    """What unpickles to a call."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_code_in_pickled_weights_is_not_run(tmp_path, capsys):
    load_pretrained(tiny_model(tmp_path), FP32)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be read as tensors alone"):
        load_pretrained(tmp_path, LoadOptions(dtype="fp32", pickled_weights=True))
    assert "code was run" not in capsys.readouterr().out


def test_a_folder_without_weights_is_refused(tmp_path):
    (tiny_model(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no weights"):
        load_pretrained(tmp_path, FP32)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    tiny_model(tmp_path)
    for file in tmp_path.glob("token*"):
        file.unlink()
    with pytest.raises(UsageError, match="holds no tokenizer"):
        load_pretrained(tmp_path, FP32)


def test_tokens_beyond_the_model_get_vectors(tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path))
    before = len(tokenizer)
    tokenizer.add_tokens(["[USER]", "[BOT]"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, FP32)
    assert loaded.model.get_input_embeddings().num_embeddings == before + 2
    assert loaded.model(torch.tensor([[before, before + 1]])).logits.shape[-1] == before + 2
    assert "2 tokens more than the model" in capsys.readouterr().err


# --- published layouts ------------------------------------------------------------------------------


class Fused(Layout):
    """A Llama whose attention was published in one tensor, grouped by key head."""

    architectures = frozenset({"FusedForCausalLM"})
    without_place = (r"\.inv_freq$",)

    def config(self, published):
        native = published.keys() - {"architectures", "auto_map", "model_type"}
        return LlamaConfig(**{key: published[key] for key in native})

    def weights(self, config):
        names = [".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"]
        return [rename_tensors("backbone.blocks", "model.layers"), split_tensor(".qkv", names, [2, 1, 1], groups=2)]


@pytest.fixture
def fused(tmp_path):
    """The folder of a published model, and the native one with the same numbers."""
    native = load_pretrained(tiny_model(tmp_path / "native"), FP32).model
    folder = tmp_path / "published"
    folder.mkdir()
    tensors = {}
    state = native.state_dict()
    for name, value in state.items():
        if "self_attn" not in name or "o_proj" in name:
            tensors[name.replace("model.layers", "backbone.blocks")] = value
    for number in range(2):
        q, k, v = (state[f"model.layers.{number}.self_attn.{part}_proj.weight"] for part in "qkv")
        rows = [piece for group in range(2) for piece in (q[group * 16 :][:16], k[group * 8 :][:8], v[group * 8 :][:8])]
        tensors[f"backbone.blocks.{number}.qkv.weight"] = torch.cat(rows)
        tensors[f"backbone.blocks.{number}.rotary.inv_freq"] = torch.ones(4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "native" / "config.json").read_text())
    own = {"architectures": ["FusedForCausalLM"], "auto_map": {"AutoConfig": "code.Config"}, "model_type": "fused"}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    (folder / "tokens.model").write_text("kept")
    return folder, native


def test_a_fused_tensor_becomes_native_ones_and_is_written_back(fused, tmp_path):
    folder, native = fused
    model = load_weights(folder, FP32, layout=Fused())
    for name, value in native.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    save_published(model, tmp_path / "back", Fused(), folder)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "back" / "tokens.model").read_text() == "kept"


def test_saving_a_model_after_loading_writes_native_names(fused, tmp_path):
    model = load_weights(fused[0], FP32, layout=Fused())
    model.save_pretrained(tmp_path / "saved")
    assert "model.layers.0.self_attn.q_proj.weight" in load_file(tmp_path / "saved" / "model.safetensors")


def test_another_model_of_the_same_class_is_read_and_written_natively_afterwards(fused, tmp_path):
    load_weights(fused[0], FP32, layout=Fused())
    sizes = {
        "vocab_size": 9,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    fresh = LlamaForCausalLM(LlamaConfig(**sizes))
    fresh.save_pretrained(tmp_path / "fresh")
    assert "model.layers.0.self_attn.q_proj.weight" in load_file(tmp_path / "fresh" / "model.safetensors")


def test_a_published_tensor_that_the_layout_does_not_know_is_refused(fused):
    folder, _ = fused
    changed(folder, lambda tensors: tensors.update({"backbone.gate": torch.ones(3)}))
    with pytest.raises(UsageError, match=r"no place in the model, first backbone.gate"):
        load_weights(folder, FP32, layout=Fused())


def test_a_published_config_without_a_needed_key_is_refused(fused):
    class Needs(Fused):
        def config(self, published):
            return LlamaConfig(vocab_size=published["n_vocab"])

    with pytest.raises(UsageError, match="lacks 'n_vocab'"):
        load_weights(fused[0], FP32, layout=Needs())


def test_code_of_a_model_is_not_run(fused):
    with pytest.raises(UsageError, match="comes with its own Python code"):
        load_pretrained(fused[0], FP32)


def test_the_stored_dtype_is_that_of_most_values(tmp_path):
    save_file({"a": torch.ones(9, dtype=torch.float16), "b": torch.ones(3)}, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == "fp16"
    with pytest.raises(UsageError, match="no safetensors"):
        stored_dtype(tmp_path / "nowhere")


def test_names_of_published_layers_are_known_to_a_run():
    plan = RunPlan(command="sft", published_modules={"qkv": ["q_proj", "k_proj", "v_proj"]})
    assert plan.native_modules(["qkv", "o_proj"]) == ["q_proj", "k_proj", "v_proj", "o_proj"]


# --- longer inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_positions_are_scaled_once(kind):
    config = LlamaConfig(max_position_embeddings=512)
    scale_positions(config, kind, 2000)
    assert (config.rope_parameters["rope_type"], config.rope_parameters["factor"]) == (kind, 4.0)
    again = LlamaConfig.from_dict(config.to_dict())
    scale_positions(again, kind, 2000)
    assert again.rope_parameters == config.rope_parameters
    assert again.max_position_embeddings == config.max_position_embeddings


def test_linear_scaling_divides_positions(tmp_path):
    """A position of the scaled model is that of the trained one times the factor."""
    folder = tiny_model(tmp_path)
    scaled = load_weights(folder, LoadOptions(dtype="fp32", rope_scaling="linear", max_length=2048))
    plain = load_weights(folder, FP32)
    ids, positions = torch.arange(20)[None], torch.arange(20)[None]
    expected = plain(ids, position_ids=positions).logits
    torch.testing.assert_close(scaled(ids, position_ids=4 * positions).logits, expected, atol=1e-5, rtol=0)


def test_a_length_that_the_model_takes_anyway_changes_nothing():
    config = LlamaConfig(max_position_embeddings=4096)
    before = config.to_dict()
    scale_positions(config, "yarn", 4096)
    assert config.to_dict() == before


def test_a_model_without_rotary_positions_cannot_be_scaled():
    with pytest.raises(UsageError, match="type gpt2 has no rotary positions"):
        scale_positions(GPT2Config(), "linear", 4096)


# --- devices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("{", "not valid JSON"), ("[1]", "no devices"), ('{"a": []}', "no devices")],
)
def test_a_device_map_that_is_none_is_refused(tmp_path, text, said):
    path = tmp_path / "map.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_device_map(path)


def test_layers_go_where_the_file_says(tmp_path):
    (tmp_path / "map.json").write_text('{"model": "cpu", "lm_head": "cpu"}')
    found = read_device_map(tmp_path / "map.json")
    assert placement(LoadOptions(device_map=found)) == {"device_map": {"model": "cpu", "lm_head": "cpu"}}
    folder = tiny_model(tmp_path / "model")
    model = load_weights(folder, LoadOptions(dtype="fp32", device_map=found))
    assert {str(parameter.device) for parameter in model.parameters()} == {"cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs are numbered, the CPU is not")
def test_memory_is_limited_on_the_device():
    assert placement(LoadOptions(max_memory=["1.5GB"])) == {
        "device_map": "auto",
        "max_memory": {"cpu": 1_500_000_000},
    }


# --- models that no plugin registered ---------------------------------------------------------------


def chosen(folder, catalogue=None, **flags):
    return choose_model(ModelSection(model_id_or_path=str(folder), **flags), catalogue or discover(entry_points=[]))


def test_a_folder_of_a_native_class_needs_no_name(tmp_path):
    choice = chosen(tiny_model(tmp_path))
    assert (choice.entry.name, choice.entry.facts["template"]) == ("native", "jinja")


def test_an_id_that_is_not_registered_is_a_native_model():
    assert (
        choose_model(ModelSection(model_id_or_path="someone/a-model"), discover(entry_points=[])).entry.name == "native"
    )


def test_native_alone_is_no_model():
    with pytest.raises(UsageError, match="no model was chosen"):
        choose_model(ModelSection(model_type="native"), discover(entry_points=[]))


def test_a_folder_with_code_names_the_families_that_read_it(fused, site):
    site.install(
        "fused", '[model.fused]\narchitectures = ["FusedForCausalLM"]\n[model.fused.ids]\n"fused-7b" = { hf = "f/f" }'
    )
    with pytest.raises(UsageError, match="published with code of its own") as caught:
        chosen(fused[0], site.catalogue())
    assert "fused-7b" in caught.value.fix
    assert chosen(fused[0], site.catalogue(), model_type="fused-7b").entry.name == "fused-7b"


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count"), [("135M", 135e6), ("1.8B", 1.8e9), ("57B-A14B", 57e9), ("8x7B", 56e9), ("1T", 1e12), ("", None)]
)
def test_a_published_size_is_a_number_of_parameters(size, count):
    assert parameters(size) == count


def test_training_everything_takes_four_times_the_weights_in_bf16():
    assert bytes_by_size(1000)["full"] == 4 * 2 * 1000
    assert bytes_by_size(1000)["qlora"] < bytes_by_size(1000)["lora"] < bytes_by_size(1000)["full"]
