"""LoRA over layers that were published packed, by GPTQ and by AWQ. Needs gptqmodel (`nox -s tests`)."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtune.errors import UsageError
from llmtune.testing import create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits, trainable

# Warnings of the libraries that are imported here.
pytestmark = [pytest.mark.gptq, pytest.mark.filterwarnings("ignore")]

GROUP = 32
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def gptq(weight, bits):
    """Return GPTQ's tensors of a weight (out, in), and what they stand for (Frantar et al., arXiv:2210.17323).

    Symmetric, in the packing of AutoGPTQ: the inputs of a column below each other in 32 bits, zero points less one.
    """
    zero, numbers, scales, meant = rounded(weight, bits)
    return {
        "qweight": packed(numbers.T, bits),
        "qzeros": packed(torch.full((len(weight), scales.shape[1]), zero - 1), bits).T.contiguous(),
        "scales": scales.T.contiguous().half(),
        "g_idx": (torch.arange(weight.shape[1]) // GROUP).int(),
    }, meant


def awq(weight, bits):
    """Return AWQ's tensors of a weight (out, in), and what they stand for (Lin et al., arXiv:2306.00978).

    In AutoAWQ's packing "gemm": eight outputs of a row in 32 bits, the even ones first.
    """
    zero, numbers, scales, meant = rounded(weight, bits)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    columns = torch.full((len(weight), scales.shape[1]), zero)
    return {
        "qweight": packed(numbers.unflatten(0, (-1, 8))[:, order].flatten(0, 1), bits).T.contiguous(),
        "qzeros": packed(columns.unflatten(0, (-1, 8))[:, order].flatten(0, 1), bits).T.contiguous(),
        "scales": scales.T.contiguous().half(),
    }, meant


def rounded(weight, bits):
    """Return the zero point, whole numbers (out, in), scales (out, groups) and the weight that they stand for."""
    zero, top = 2 ** (bits - 1), 2**bits - 1
    grouped = weight.unflatten(1, (-1, GROUP))
    scales = (grouped.abs().amax(2) / (zero - 1)).half().float()
    numbers = (grouped / scales[..., None] + zero).round().clamp(0, top)
    return zero, numbers.flatten(1).long(), scales, ((numbers - zero) * scales[..., None]).flatten(1)


def packed(numbers, bits):
    """Pack whole numbers (rows, columns) to (rows * bits / 32, columns) of int32."""
    each = 32 // bits
    shifted = numbers.unflatten(0, (-1, each)) << (bits * torch.arange(each)[None, :, None])
    return shifted.sum(1).to(torch.int64).bitwise_and(0xFFFFFFFF).to(torch.uint32).view(torch.int32)


@pytest.fixture(params=[(gptq, 4), (gptq, 8), (awq, 4)], ids=["gptq 4 bits", "gptq 8 bits", "awq 4 bits"])
def published(request, tmp_path):
    """A published, packed checkpoint, and the weights that its numbers stand for."""
    pack, bits = request.param
    tiny_model(tmp_path, hidden_size=128)
    tensors, meant = {}, {}
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        if "_proj." in name:
            pieces, meant[name] = pack(weight, bits)
            tensors |= {name.removesuffix("weight") + kind: piece for kind, piece in pieces.items()}
        else:
            tensors[name] = weight.half()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": pack.__name__,
        "bits": bits,
        "group_size": GROUP,
        **({"desc_act": False, "sym": True} if pack is gptq else {"version": "gemm", "zero_point": True}),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path, meant


def prepare(folder, dtype="fp32", **options):
    tuner = create("tuner", "lora", options, run_context(target_modules=()))
    torch.manual_seed(0)
    return tuner, tuner.prepare(load_tiny(folder, dtype=dtype).model)


def adapted(model):
    return {name.split(".lora_A")[0].rpartition(".")[2] for name in trainable(model) if ".lora_A" in name}


@pytest.mark.parametrize("word", ["ALL", "DEFAULT"])
def test_packed_layers_are_linear_layers(published, word):
    _, model = prepare(published[0], target_modules=[word])
    assert adapted(model) == PROJECTIONS
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert type(layer).__name__ in ("GPTQLoraLinear", "AwqLoraLinear")


def test_gradients_pass_through_packed_layers_also_after_an_answer(published):
    """gptqmodel's own choice of a kernel loses them from then on, without an error."""
    folder, meant = published
    model = load_tiny(folder).model
    logits(model)
    model.train()
    layer = model.model.layers[0].mlp.down_proj
    inputs = torch.randn(1, 3, layer.in_features, requires_grad=True)
    layer(inputs).sum().backward()
    expected = meant["model.layers.0.mlp.down_proj.weight"].sum(0)
    torch.testing.assert_close(inputs.grad, expected.expand(1, 3, -1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_lora_trains_on_top_and_leaves_the_base_alone(published, dtype):
    _, model = prepare(published[0], dtype, target_modules=["ALL"])
    logits(model)  # a kernel brings scales into its own type when it is first used
    names, before = trainable(model), {name: value.clone() for name, value in model.state_dict().items()}
    losses = fit(model, steps=20, learning_rate=3e-3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert losses[-1] < 0.9 * losses[0]
    assert changed == names


def test_a_saved_adapter_comes_back_bit_for_bit(published, tmp_path):
    tuner, model = prepare(published[0])
    fit(model, steps=3, learning_rate=1e-2)
    tuner.save(model, tmp_path / "saved")
    again = tuner.load(load_tiny(published[0]).model, tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))


def test_dora_over_packed_weights_is_refused(published):
    with pytest.raises(UsageError, match=r"--target_modules ALL: .*does not support DoRA"):
        prepare(published[0], target_modules=["ALL"], use_dora=True)
