"""The quantizer `eetq` on a machine without its GPU: what it refuses, and the keywords it adds."""

from pathlib import Path

import pytest
import torch

from llmtune.cli.main import main
from llmtune.errors import UsageError
from llmtune.plugins.requirements import missing_requirements
from llmtune.testing import ManifestTests, run_context
from llmtune_plugin_eetq import plugin

FLAGS = ("--model_type", "smollm2-135m-instruct", "--dataset", "self-cognition#20", "--quant_method", "eetq")


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_eetq" / "llmtune-plugin.toml"


class Flags:
    """A configuration of one flag."""

    def __init__(self, dtype):
        self.dtype = dtype

    def get(self, flag):
        return {"dtype": self.dtype}[flag]


@pytest.fixture
def gpu(monkeypatch, request):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)


@pytest.mark.skipif(not missing_requirements(["eetq", "kernels"]), reason="eetq and kernels are installed")
def test_what_is_not_installed_is_named_with_the_command(capsys):
    assert main(["sft", *FLAGS, "--quantization_bit", "8"]) != 0
    err = capsys.readouterr().err
    assert "needs eetq (not installed), kernels (not installed)" in err
    assert "pip install 'eetq' 'kernels'" in err


@pytest.mark.parametrize("gpu", [False], indirect=True)
def test_a_machine_without_a_gpu_is_refused(gpu):
    (problem,) = plugin.llmtune_check_plan(plan=None, config=Flags("AUTO"))
    assert "needs an NVIDIA GPU" in problem
    assert "--quant_method hqq" in problem


@pytest.mark.parametrize("gpu", [True], indirect=True)
@pytest.mark.parametrize(("dtype", "problems"), [("AUTO", 0), ("fp16", 0), ("bf16", 1), ("fp32", 1)])
def test_a_type_that_its_kernels_do_not_read_is_refused(gpu, dtype, problems):
    found = list(plugin.llmtune_check_plan(plan=None, config=Flags(dtype)))
    assert found == [f"--dtype {dtype}: eetq computes in fp16 only"] * problems


def test_the_type_is_fp16_where_the_user_leaves_it_open():
    assert plugin.llmtune_adjust_plan(plan=None, config=None) == {"dtype": "fp16"}


def test_transformers_is_told_to_quantize_to_8_bits():
    quantizer = plugin.llmtune_create_quantizer("eetq", None, run_context(quantization_bit=8))
    settings = quantizer.load_kwargs("fp16")["quantization_config"]
    assert (settings.quant_method, settings.weights) == ("eetq", "int8")


def test_merging_into_its_weights_is_refused():
    with pytest.raises(UsageError, match="--quantization_bit 0"):
        plugin.llmtune_create_quantizer("eetq", None, run_context(quantization_bit=8)).dequantize(None)
