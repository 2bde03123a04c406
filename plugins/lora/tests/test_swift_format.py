"""Adapters in SWIFT's own form, written by hand as ms-swift 4.6.0 writes them (with peft 0.18.0, on the tiny Llama)."""

import json
import re

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from llmtune.errors import CheckpointError, UsageError
from llmtune.testing import create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import fit, logits

SETTINGS = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "none",
    "corda_config": None,
    "enable_lora": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": False,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "lora_dtype": None,
    "lorap_emb_lr": 1e-06,
    "lorap_lr_ratio": 16.0,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "model_key_mapping": None,
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.18.0",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "swift_type": "LORA",
    "target_modules": ["v_proj", "q_proj"],
    "target_parameters": None,
    "task_type": None,
    "trainable_token_indices": None,
    "use_dora": False,
    "use_merged_linear": False,
    "use_qa_lora": False,
    "use_qalora": False,
    "use_rslora": False,
}
"""The whole adapter_config.json of an adapter of rank 4 on q_proj and v_proj."""


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def in_swift_form(name, adapter):
    """Return SWIFT's name of one of peft's tensors."""
    name = name.removeprefix("base_model.model.")
    name = re.sub(r"\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?=\.|$)", rf".\1.{adapter}", name)
    return re.sub(r"(\.lora_magnitude_vector\.\w+)$", r"\1.weight", name)


@pytest.fixture
def write(base, tmp_path):
    """Train an adapter, write it as SWIFT does and return (folder, the trained model)."""

    def write(folder=tmp_path / "swift", name="default", settings=(), **options):
        options = {"lora_rank": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], **options}
        torch.manual_seed(0)
        model = create("tuner", "lora", options, run_context()).prepare(load_tiny(base).model)
        fit(model, steps=3, learning_rate=1e-2)
        (folder / name).mkdir(parents=True)
        save_settings(folder / name, **dict(settings))
        stored = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {in_swift_form(key, name): value for key, value in stored.items()}
        save_file(tensors, folder / name / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "configuration.json").write_text("{}")
        (folder / "README.md").write_text("## Training procedure\n\n### Framework versions\n\n\n- SWIFT 4.6.0\n")
        return folder, model

    return write


def save_settings(adapter, **changed):
    text = json.dumps({**SETTINGS, **changed}, indent=2, sort_keys=True)
    (adapter / "adapter_config.json").write_text(text)


@pytest.fixture
def tuner():
    return create("tuner", "lora", None, run_context())


def test_the_names_are_those_of_swift(write):
    folder, _ = write()
    assert sorted(name for name in load_file(folder / "default/adapter_model.safetensors") if ".0." in name) == [
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "model.layers.0.self_attn.q_proj.lora_B.default.weight",
        "model.layers.0.self_attn.v_proj.lora_A.default.weight",
        "model.layers.0.self_attn.v_proj.lora_B.default.weight",
    ]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"use_rslora": True}, {"use_rslora": True}),
        ({"use_dora": True}, {"use_dora": True}),
        ({"modules_to_save": ["norm", "embed_tokens"]}, {"modules_to_save": ["norm", "embed_tokens"]}),
        ({"target_modules": ["q_proj", "EMBEDDING"]}, {"target_modules": ["embed_tokens", "q_proj"]}),
        ({"target_regex": r".*layers\.0.*q_proj"}, {"target_modules": r".*layers\.0.*q_proj"}),
        ({}, {"lora_dtype": "float32", "task_type": "CAUSAL_LM"}),
    ],
    ids=["plain", "rslora", "dora", "whole layers", "embedding", "regex", "dtype"],
)
class TestWhatIsConverted:
    @pytest.mark.parametrize("part", [".", "default"])
    def test_it_loads_with_the_logits_that_it_was_trained_to(self, write, tuner, base, options, settings, part):
        folder, trained = write(settings=settings, **options)
        loaded = tuner.load(load_tiny(base).model, folder / part)
        assert torch.equal(logits(loaded), logits(trained))

    def test_peft_reads_what_is_written(self, write, tuner, base, options, settings, tmp_path):
        folder, trained = write(settings=settings, **options)
        (tmp_path / "peft").mkdir()
        tuner.to_peft(folder, tmp_path / "peft")
        assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        stored = json.loads((tmp_path / "peft/adapter_config.json").read_text())
        assert stored["peft_type"] == "LORA"
        assert not {"swift_type", "use_qa_lora", "lorap_lr_ratio", "lora_dtype"} & set(stored)
        assert torch.equal(logits(tuner.load(load_tiny(base).model, tmp_path / "peft")), logits(trained))


def test_an_adapter_of_another_name_is_found(write, tuner, base):
    folder, trained = write(name="my.lora")
    assert torch.equal(logits(tuner.load(load_tiny(base).model, folder)), logits(trained))


def test_names_with_the_prefix_of_peft_are_taken_as_well(write, tuner, base):
    """SWIFT reads such files, and wrote them for a while."""
    folder, trained = write()
    path = folder / "default/adapter_model.safetensors"
    save_file({f"base_model.model.{name}": value for name, value in load_file(path).items()}, path)
    assert torch.equal(logits(tuner.load(load_tiny(base).model, folder)), logits(trained))


def test_it_is_added_to_a_model_that_has_an_adapter(write, tuner, base, tmp_path):
    first, trained = write(), write(folder=tmp_path / "other", target_modules=["v_proj"], lora_rank=4)
    save_settings(tmp_path / "other/default", target_modules=["v_proj"])
    model = tuner.load(load_tiny(base).model, first[0])
    model = tuner.add(model, tmp_path / "other", "second")
    tuner.choose(model, "second")
    assert torch.equal(logits(model), logits(trained[1]))
    tuner.choose(model, None)
    assert torch.equal(logits(model), logits(first[1]))


def test_it_is_trained_further(write, tuner, base):
    folder, _ = write()
    model = tuner.load(load_tiny(base).model, folder, trainable=True)
    losses = fit(model, steps=10, learning_rate=1e-2)
    assert losses[-1] < losses[0]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"swift_type": "ADAPTER"}, "holds an adapter of SWIFT's type ADAPTER, not LoRA"),
            (
                {"use_merged_linear": True, "enable_lora": [True]},
                "was trained with enable_lora, use_merged_linear of SWIFT",
            ),
            ({"use_qa_lora": True}, "was trained with use_qa_lora of SWIFT"),
            ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, which cannot be repeated"),
        ],
    )
    def test_settings_that_peft_does_not_have(self, write, tuner, base, tmp_path, settings, problem):
        folder, _ = write()
        save_settings(folder / "default", **settings)
        for act in (
            lambda: tuner.check_folder(folder),
            lambda: tuner.load(load_tiny(base).model, folder),
            lambda: tuner.to_peft(folder, tmp_path),
        ):
            with pytest.raises(CheckpointError, match=re.escape(problem)):
                act()

    def test_several_adapters_that_worked_together(self, write, tuner):
        folder, _ = write()
        write(name="other")
        with pytest.raises(CheckpointError, match="holds several adapters: default, other") as caught:
            tuner.check_folder(folder)
        assert str(folder / "default") in caught.value.fix
        tuner.check_folder(folder / "default")

    @pytest.mark.parametrize("part", [".", "default"])
    def test_layers_that_were_trained_beside_the_adapter(self, write, tuner, part):
        folder, _ = write()
        (folder / "extra_states").mkdir()
        (folder / "extra_states/adapter_config.json").write_text('{"extra_state_keys": [".*norm.*"]}')
        with pytest.raises(CheckpointError, match=r"other layers were trained \(extra_states\)"):
            tuner.check_folder(folder / part)

    def test_pickled_weights(self, write, tuner, base):
        """SWIFT 2 could write them."""
        folder, _ = write()
        weights = folder / "default/adapter_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(CheckpointError, match=r"default holds no adapter_model\.safetensors"):
            tuner.load(load_tiny(base).model, folder)

    def test_weights_that_do_not_fit_are_named_with_the_folder_that_was_given(self, write, tuner, base):
        folder, _ = write()
        save_settings(folder / "default", target_modules=["q_proj", "k_proj", "v_proj"])
        with pytest.raises(CheckpointError) as caught:
            tuner.load(load_tiny(base).model, folder)
        assert f"the adapter in {folder / 'default'} does not fit" in caught.value.problem

    def test_a_folder_without_an_adapter(self, tuner, tmp_path):
        with pytest.raises(CheckpointError, match="holds no LoRA adapter"):
            tuner.check_folder(tmp_path)

    def test_converting_what_is_in_pefts_form(self, write, tuner, tmp_path):
        folder, _ = write()
        tuner.to_peft(folder, tmp_path)
        with pytest.raises(UsageError, match="is in peft's form already"):
            tuner.to_peft(tmp_path, tmp_path)
