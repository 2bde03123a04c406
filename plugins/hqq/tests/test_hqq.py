"""The quantizer `hqq` on a CPU: what is quantized, that it computes, and that LoRA trains on top, also by the CLI."""

import json
from pathlib import Path

import pytest
import torch
from hqq.core import quantize as hqq

from llmtune.cli.main import main
from llmtune.errors import UsageError
from llmtune.testing import ManifestTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits, trainable

BITS = [1, 2, 3, 4, 8]
LAYERS = 2 * 7
CLOSE = {1: 0.4, 2: 0.8, 3: 0.95, 4: 0.98, 8: 0.9999}


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_hqq" / "llmtune-plugin.toml"


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def quantize(folder, tmp_path):
    """Load the tiny model and quantize it; `layers` is the content of --hqq_dynamic_config_path."""

    def quantize(bits=4, dtype="fp32", layers=None, said=None, base=folder, **options):
        if layers is not None:
            (tmp_path / "layers.json").write_text(json.dumps(layers))
            options["hqq_dynamic_config_path"] = str(tmp_path / "layers.json")
        run = run_context(quantization_bit=bits)
        if said is not None:
            object.__setattr__(run, "say", said.append)
        quantizer = create("quantizer", "hqq", options, run)
        return quantizer.quantize(load_tiny(base, dtype=dtype, kwargs=quantizer.load_kwargs(dtype)).model)

    return quantize


def quantized(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, hqq.HQQLinear)}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("axis", [0, 1])
class TestBits:
    def test_every_linear_layer_but_the_head_is_quantized_and_the_run_says_so(self, quantize, bits, axis):
        said = []
        model = quantize(bits, hqq_axis=axis, said=said)
        found = quantized(model)
        assert len(found) == LAYERS
        assert type(model.lm_head) is torch.nn.Linear
        assert {(one.meta["nbits"], one.meta["axis"], one.meta["group_size"]) for one in found.values()} == {
            (bits, axis, 64)
        }
        assert said == [f"hqq: {LAYERS} linear layers in {bits} bits"]

    @pytest.mark.parametrize("dtype", ["fp32", "bf16"])
    def test_answers_stay_close_to_the_whole_model(self, quantize, folder, bits, axis, dtype):
        model = quantize(bits, dtype, hqq_axis=axis)
        assert {one.compute_dtype for one in quantized(model).values()} == {model.dtype}
        found, whole = logits(model).float(), logits(load_tiny(folder).model)
        assert torch.nn.functional.cosine_similarity(found, whole, dim=-1).mean() > CLOSE[bits]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_take_less_memory(quantize, bits):
    layer = quantized(quantize(bits))["model.layers.0.mlp.up_proj"]
    assert layer.W_q.element_size() * layer.W_q.numel() == 64 * 32 * bits // 8


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_lora_trains_on_top_and_leaves_the_base_alone(quantize, bits, checkpointing, dtype):
    model = create("tuner", "lora", {"target_modules": ["ALL"]}).prepare(quantize(bits, dtype))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    names = trainable(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    losses = fit(model, steps=20, learning_rate=1e-2)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert losses[-1] < 0.98 * losses[0]
    assert len(names) == 2 * LAYERS
    assert changed == names


def test_gradients_pass_through_the_packed_weights_exactly(quantize):
    layer = quantized(quantize())["model.layers.0.mlp.down_proj"]
    inputs = torch.randn(3, layer.in_features, requires_grad=True)
    layer(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, layer.dequantize().sum(0).expand(3, -1))


class TestSettingsOfSingleLayers:
    def test_the_longest_name_wins_and_the_others_are_as_the_flags_say(self, quantize):
        layers = {"v_proj": {"bits": 8}, "layers.1.self_attn.v_proj": {"nbits": 2, "group_size": 16, "axis": 1}}
        said = []
        found = quantized(quantize(4, layers=layers, said=said))
        settings = {name: (one.meta["nbits"], one.meta["group_size"], one.meta["axis"]) for name, one in found.items()}
        assert settings.pop("model.layers.0.self_attn.v_proj") == (8, 64, 0)
        assert settings.pop("model.layers.1.self_attn.v_proj") == (2, 16, 1)
        assert set(settings.values()) == {(4, 64, 0)}
        assert said == [f"hqq: {LAYERS} linear layers in 2 and 4 and 8 bits"]

    def test_a_name_that_no_layer_has_is_refused(self, quantize):
        with pytest.raises(UsageError, match="hqq_dynamic_config_path names proj, c_attn: no linear layer"):
            quantize(layers={"proj": {"bits": 8}, "v_proj": {}, "c_attn": {"bits": 8}})

    @pytest.mark.parametrize(
        ("layers", "problem"),
        [
            ({"v_proj": {"bits": 5}}, "v_proj.bits: Input should be 1, 2, 3, 4 or 8"),
            ({"v_proj": {"group": 64}}, "v_proj.group: Extra inputs are not permitted"),
            ({"v_proj": {"group_size": 12}}, "v_proj.group_size: Input should be a multiple of 8"),
            (["v_proj"], "Input should be an object"),
        ],
    )
    def test_what_is_no_setting_is_refused(self, quantize, layers, problem):
        with pytest.raises(UsageError) as caught:
            quantize(layers=layers)
        assert problem in caught.value.problem

    def test_the_file_is_read_before_anything_is_loaded(self, folder, tmp_path, capsys):
        flags = ["--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(folder), "--dry_run", "true"]
        flags += ["--quant_method", "hqq", "--quantization_bit", "4", "--dataset", "self-cognition#20"]
        assert main(["sft", *flags, "--hqq_dynamic_config_path", str(tmp_path / "none.json")]) == 2
        assert f"--hqq_dynamic_config_path {tmp_path}/none.json: No such file" in capsys.readouterr().err


class TestGroups:
    """hqq needs the number of weights, not the width, to be a multiple of the group: width 32 takes groups of 64."""

    @pytest.mark.parametrize(("bits", "axis"), [(1, 1), (2, 1), (4, 1)])
    def test_groups_that_do_not_fill_a_byte_are_refused(self, quantize, bits, axis):
        """16 x 32 weights are one group of 512."""
        with pytest.raises(UsageError) as caught:
            quantize(bits, hqq_axis=axis, layers={"k_proj": {"group_size": 512}})
        assert "model.layers.0.self_attn.k_proj, 16 x 32 weights" in caught.value.problem
        assert f"to {bits} bits in groups of 512 along axis {axis}" in caught.value.problem

    def test_groups_that_do_not_divide_the_weights_are_refused(self, quantize):
        with pytest.raises(UsageError, match="16 x 32 weights, to 8 bits in groups of 24 along axis 0"):
            quantize(8, layers={"k_proj": {"group_size": 24}})

    @pytest.mark.parametrize("bits", [3, 8])
    def test_one_group_a_layer_works_where_numbers_are_not_packed(self, quantize, folder, bits):
        model = quantize(bits, hqq_axis=1, layers={"k_proj": {"group_size": 512}})
        assert torch.isfinite(logits(model)).all()


def test_a_model_with_nothing_to_quantize_is_refused(folder):
    model = load_tiny(folder).model
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(UsageError, match="hqq quantized nothing"):
        create("quantizer", "hqq", {}, run_context(quantization_bit=4)).quantize(model)


def test_a_tuned_model_answers_after_it_was_saved(folder, tmp_path, capfd):
    """Trained and asked through the command line, with gradient checkpointing as it is by default."""
    flags = ["--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(folder), "--dtype", "fp32"]
    flags += ["--dataset", "self-cognition#20", "--model_name", "小智", "Ada", "--model_author", "团队", "Ada's"]
    flags += ["--quant_method", "hqq", "--quantization_bit", "4", "--hqq_axis", "1", "--target_modules", "ALL"]
    flags += ["--max_steps", "4", "--learning_rate", "0.01", "--output_dir", str(tmp_path / "out"), "--disable_tqdm"]
    assert main(["sft", *flags]) == 0, capfd.readouterr().err
    assert f"hqq: {LAYERS} linear layers in 4 bits" in capfd.readouterr().out
    checkpoint = next(tmp_path.glob("out/*/*/checkpoint-4"))
    stored = json.loads((checkpoint / "sft_args.json").read_text())
    assert (stored["quant_method"], stored["quantization_bit"], stored["hqq_axis"]) == ("hqq", 4, 1)
    assert sum(path.stat().st_size for path in checkpoint.glob("adapter*")) < 60_000

    (tmp_path / "ask.jsonl").write_text('{"query": "Who are you?"}\n')
    ask = ["--val_dataset", str(tmp_path / "ask.jsonl"), "--do_sample", "false", "--max_new_tokens", "4"]
    assert main(["infer", "--ckpt_dir", str(checkpoint), *ask, "--result_dir", str(tmp_path / "r")]) == 0
    assert "hqq: 14 linear layers in 4 bits" in capfd.readouterr().out

    assert main(["merge-lora", "--ckpt_dir", str(checkpoint)]) == 0
    quantizer = create("quantizer", "hqq", {"hqq_axis": 1}, run_context(quantization_bit=4))
    unmerged = create("tuner", "lora").load(quantizer.quantize(load_tiny(folder).model), checkpoint)
    from transformers import AutoModelForCausalLM  # imports hqq, which warns: `importorskip` above kept that quiet

    merged = AutoModelForCausalLM.from_pretrained(f"{checkpoint}-merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), logits(unmerged), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("bias", [False, True])
def test_dequantized_layers_are_plain_and_answer_the_same(folder, bits, bias):
    model = load_tiny(folder).model
    if bias:
        model.model.layers[0].self_attn.o_proj.bias = torch.nn.Parameter(torch.arange(32.0))
    names = set(model.state_dict())
    quantizer = create("quantizer", "hqq", {}, run_context(quantization_bit=bits))
    expected = logits(quantizer.quantize(model))
    plain = quantizer.dequantize(model)
    assert set(plain.state_dict()) == names
    assert not quantized(plain)
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=1e-6)
