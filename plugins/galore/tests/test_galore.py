"""The tuner `galore`: the kit, and what a run with it refuses and resumes."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmtune.cli.main import main
from llmtune.config.commands import SftConfig
from llmtune.config.optimizer import OptimizerSection
from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, run_context, tiny_model
from llmtune.testing.tuner import logits
from llmtune_plugin_galore.options import GaloreOptions
from llmtune_plugin_galore.plugin import llmtune_adjust_plan, llmtune_check_plan

RANK = 4
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_galore" / "llmtune-plugin.toml"


class GaloreTests(TunerTests):
    several_adapters = False

    @pytest.fixture
    def name(self):
        return "galore"


class TestGalore(GaloreTests):
    """The gap is no divisor of the steps at which the kit stops."""

    @pytest.fixture
    def options(self):
        return {"galore_rank": 16, "galore_update_proj_gap": 2}


class TestQGalore(GaloreTests):
    @pytest.fixture
    def options(self):
        return {
            "galore_rank": 16,
            "galore_update_proj_gap": 1,
            "galore_queue_size": 2,
            "galore_cos_threshold": 0.1,
            "galore_with_embedding": True,
            "galore_quantization": True,
            "galore_proj_quant": True,
        }


class TestUpdatesInBackward(GaloreTests):
    @pytest.fixture
    def options(self):
        return {"galore_rank": 16, "galore_proj_type": "full", "galore_optim_per_parameter": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def base(folder):
    return load_tiny(folder).model


def galore(**options):
    return create("tuner", "galore", {"galore_rank": RANK, **options})


def optimizer(tuner, model, **settings):
    return tuner.optimizer(tuner.prepare(model), OptimizerSection(learning_rate=1e-2, **settings))


def step(model, made, steps=1):
    ids = torch.arange(24, device=model.device)[None]
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        made.step()
        made.zero_grad()


def projected(tuner, model):
    """Return the names of the projected parameters."""
    found = {id(one) for one in tuner.projected(model)}
    return {name for name, one in model.named_parameters() if id(one) in found}


LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def without_weights(folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


# --- what is trained and what is kept -------------------------------------------------------------


def test_everything_is_trained_and_the_state_is_that_of_the_paper(base):
    """W (m, n), m <= n, rank r: mr for the projection and 2nr for the moments (arXiv:2403.03507, table 1)."""
    tuner = galore()
    made = optimizer(tuner, base)
    trained, total = trainable_parameters(base)
    assert trained == total
    step(base, made)
    names, expected = projected(tuner, base), 0
    for name, parameter in base.named_parameters():
        kept = sum(value.numel() for value in made.state[parameter].values() if value.ndim)
        shorter, longer = min(parameter.shape), max(parameter.shape)
        values = shorter * RANK + 2 * longer * RANK if name in names else 2 * parameter.numel()
        assert kept == values, name
        expected += values
    assert tuner.optimizer_values(base) == expected


@pytest.mark.parametrize("kind", ["std", "reverse_std", "right", "left", "full"])
def test_memory_is_counted_on_a_model_without_weights(folder, base, kind):
    tuner = galore(galore_proj_type=kind, galore_with_embedding=True)
    made = optimizer(tuner, base)
    step(base, made)
    kept = sum(value.numel() for state in made.state.values() for value in state.values() if value.ndim)
    with torch.device("meta"):
        model = tuner.prepare(without_weights(folder))
    assert tuner.optimizer_values(model) == kept


def test_attention_and_mlp_are_projected_by_default(base):
    expected = {name for name, _ in base.named_parameters() if any(part in name for part in LINEAR)}
    assert projected(galore(), base) == expected
    assert len(expected) == 14


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        (["q_proj"], ["q_proj"]),
        (["attn"], LINEAR[:4]),
        (["mlp", "v_proj"], ["mlp", "v_proj"]),
        (["lm_head"], ["lm_head"]),
    ],
)
def test_target_modules_are_parts_of_names(base, wanted, parts):
    expected = {name for name, _ in base.named_parameters() if any(part in name for part in parts)}
    assert projected(galore(galore_target_modules=wanted), base) == expected


def test_names_of_published_code_are_understood(base):
    run = run_context(published_modules={"W_pack": ["q_proj", "k_proj", "v_proj"]})
    tuner = create("tuner", "galore", {"galore_target_modules": ["W_pack"]}, run)
    assert projected(tuner, base) == projected(galore(galore_target_modules=["q_proj", "k_proj", "v_proj"]), base)


def test_the_embedding_is_projected_where_asked_for(base):
    assert projected(galore(galore_with_embedding=True), base) - projected(galore(), base) == {
        "model.embed_tokens.weight"
    }


def test_weight_decay_is_that_of_the_trainer(base):
    from transformers import Trainer

    made = optimizer(galore(), base, weight_decay=0.1)
    decayed = {id(one) for group in made.param_groups if group["weight_decay"] for one in group["params"]}
    assert {group["weight_decay"] for group in made.param_groups} == {0.0, 0.1}
    assert {name for name, one in base.named_parameters() if id(one) in decayed} == set(
        Trainer.get_decay_parameter_names(None, base)
    )


def test_transformers_loads_the_saved_model(base, tmp_path):
    from transformers import AutoModelForCausalLM

    tuner = galore()
    step(base, optimizer(tuner, base), steps=2)
    tuner.save(base, tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(base))


# --- flags change what they say -------------------------------------------------------------------


def test_updates_in_backward_are_the_same_and_free_the_gradients(base):
    other = copy.deepcopy(base)
    ordinary, at_once = optimizer(galore(), base), optimizer(galore(galore_optim_per_parameter=True), other)
    step(base, ordinary, steps=4)
    step(other, at_once, steps=3)
    ids = torch.arange(24)[None]
    other(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    expected = dict(base.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in other.named_parameters())


def test_updates_in_backward_learn_at_the_scheduled_rate_also_after_a_resume(base):
    made = optimizer(galore(galore_optim_per_parameter=True), base)
    made.load_state_dict(made.state_dict())
    for group in made.param_groups:
        group["lr"] = 0.0
    before = {name: value.detach().clone() for name, value in base.named_parameters()}
    step(base, made)
    assert all(torch.equal(value, before[name]) for name, value in base.named_parameters())


def test_the_scale_is_a_factor_on_projected_updates_alone(base):
    other = copy.deepcopy(base)
    start = {name: value.detach().clone() for name, value in base.named_parameters()}
    step(base, optimizer(galore(), base, weight_decay=0.0))
    step(other, optimizer(galore(galore_scale=0.25), other, weight_decay=0.0))
    names, changed = projected(galore(), base), dict(other.named_parameters())
    for name, value in base.named_parameters():
        factor = 0.25 if name in names else 1.0
        torch.testing.assert_close(changed[name] - start[name], factor * (value - start[name]), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"])
def test_moments_are_kept_in_8_bits(tmp_path, name):
    folder = tiny_model(tmp_path, hidden_size=128)
    models = [load_tiny(folder).model for _ in range(2)]
    made = optimizer(galore(galore_rank=32), models[0], optim=name)
    exact = optimizer(galore(galore_rank=32), models[1])
    for model, one in zip(models, (made, exact), strict=True):
        step(model, one, steps=3)
    down = models[0].model.layers[0].mlp.down_proj.weight
    state = made.state[down]
    assert state["exp_avg"].shape == (32, 256)
    assert {state["exp_avg"].dtype, state["exp_avg_sq"].dtype} == {torch.uint8}
    assert state["exp_avg_scale"].shape == (32 * 256 / 256,)
    assert made.state[models[0].model.norm.weight]["exp_avg"].dtype == torch.float32  # small ones stay exact
    expected = models[1].model.layers[0].mlp.down_proj.weight
    start = load_tiny(folder).model.model.layers[0].mlp.down_proj.weight
    assert (down - expected).norm() < 0.2 * (expected - start).norm()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit"])
@pytest.mark.parametrize("bits", [None, 4])
def test_a_resumed_optimizer_is_the_uninterrupted_one(tmp_path, device, dtype, optim, bits):
    quantized = {"galore_quantization": True, "galore_proj_quant": True, "galore_proj_bits": bits} if bits else {}
    tuner = galore(galore_rank=64, galore_update_proj_gap=2, **quantized)
    whole = load_tiny(tiny_model(tmp_path, hidden_size=128)).model.to(device, dtype)
    made = optimizer(tuner, whole, optim=optim)
    step(whole, made, steps=3)
    torch.save(made.state_dict(), tmp_path / "optimizer.pt")
    model = copy.deepcopy(whole)
    resumed = optimizer(tuner, model, optim=optim)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", map_location="cpu", weights_only=True))
    for one, its in ((whole, made), (model, resumed)):
        step(one, its, steps=3)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), model.parameters(), strict=True))
    states = zip(made.state.values(), resumed.state.values(), strict=True)
    assert all(torch.equal(one[key], other[key]) and one.keys() == other.keys() for one, other in states for key in one)


# --- what is refused ------------------------------------------------------------------------------


def test_unknown_target_modules_are_refused_before_weights_load(folder):
    with torch.device("meta"):
        model = without_weights(folder)
    with pytest.raises(UsageError) as caught:
        galore(galore_target_modules=["q_proj", "W_pack"]).prepare(model)
    assert caught.value.problem == "--galore_target_modules W_pack: no linear layer has that in its name"
    assert all(name in caught.value.fix for name in LINEAR)


@pytest.mark.parametrize(
    "flags",
    [
        {"galore_rank": 0},
        {"galore_update_proj_gap": 0},
        {"galore_scale": 0.0},
        {"galore_proj_type": "random"},
        {"galore_proj_bits": 3, "galore_quantization": True},
        {"galore_proj_group_size": 0},
        {"galore_gamma_proj": 0},
        {"galore_queue_size": 0},
        {"galore_cos_threshold": 1.5},
        {"galore_target_modules": []},
    ],
)
def test_values_that_mean_nothing_are_refused(flags):
    with pytest.raises(UsageError, match=f"--{next(iter(flags))}"):
        galore(**flags)


def test_bits_without_q_galore_are_refused():
    with pytest.raises(UsageError, match="--galore_proj_quant is a part of Q-GaLore: add --galore_quantization true"):
        galore(galore_proj_quant=True)


@pytest.fixture
def config():
    """Builds the configuration of a run; keywords are options of GaLore and settings of any section."""

    def config(**settings):
        options = {flag: settings.pop(flag) for flag in list(settings) if flag in GaloreOptions.model_fields}
        sections = {}
        for flag, value in settings.items():
            sections.setdefault(SftConfig().section_of(flag), {})[flag] = value
        made = SftConfig.model_validate(sections)
        made._options = {("tuner", "galore"): GaloreOptions(**options)}
        return made

    return config


def problems(config):
    return list(llmtune_check_plan(plan=None, config=config))


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"])
def test_flavours_of_adamw_are_fine(config, name):
    assert problems(config(optim=name)) == []


@pytest.mark.parametrize("name", ["sgd", "adafactor", "paged_adamw_32bit", "lion_8bit"])
def test_other_optimizers_are_refused(config, name):
    (line,) = problems(config(optim=name))
    assert line.startswith(f"--optim {name}: GaLore is AdamW; use adamw_torch,")


def test_updates_in_backward_need_all_of_a_step_at_once(config, monkeypatch):
    flags = {"galore_optim_per_parameter": True, "max_grad_norm": 0.0}
    assert problems(config(**flags)) == []
    (line,) = problems(config(**flags, gradient_accumulation_steps=4))
    assert line.endswith("set --gradient_accumulation_steps 1")
    (line,) = problems(config(galore_optim_per_parameter=True))
    assert line.endswith("set --max_grad_norm 0")
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    (line,) = problems(config(**flags))
    assert line.endswith("the gradients of 2 processes are averaged: use one process")


def test_updates_in_backward_choose_one_batch_a_step(config):
    precision = {} if torch.cuda.is_available() else {"dtype": "fp32"}
    assert llmtune_adjust_plan(plan=None, config=config()) == precision
    chosen = llmtune_adjust_plan(plan=None, config=config(galore_optim_per_parameter=True))
    assert chosen == {**precision, "gradient_accumulation_steps": 1}


def test_8_bits_without_bitsandbytes_say_what_to_install(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError) as caught:
        optimizer(galore(), base, optim="adamw_8bit")
    assert "needs bitsandbytes" in caught.value.problem
    assert caught.value.fix == "pip install bitsandbytes"


# --- a whole run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ["--galore_update_proj_gap", "2", "--gradient_accumulation_steps", "2"],
        ["--galore_optim_per_parameter", "--max_grad_norm", "0"],
        ["--galore_quantization", "--galore_proj_quant", "--galore_update_proj_gap", "1", "--optim", "adamw_8bit"],
    ],
)
def test_a_resumed_run_is_the_uninterrupted_run(folder, tmp_path, flags):
    words = ["sft", "--sft_type", "full", "--use_galore", "--galore_rank", "8", *flags]
    words += ["--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(folder), "--disable_tqdm"]
    words += ["--dataset", "self-cognition#20", "--model_name", "Ada", "Ada", "--model_author", "Team", "Team"]
    words += ["--max_steps", "5", "--save_steps", "3", "--eval_steps", "3", "--save_only_model", "false"]
    words += ["--add_output_dir_suffix", "false", "--save_total_limit", "-1", "--output_dir", str(tmp_path / "run")]
    assert main(words) == 0
    run = tmp_path / "run"
    (run / "checkpoint-5").rename(tmp_path / "uninterrupted")
    assert main([*words, "--resume_from_checkpoint", str(run / "checkpoint-3")]) == 0
    expected, found = (
        load_file(one / "model.safetensors") for one in (tmp_path / "uninterrupted", run / "checkpoint-5")
    )
    start = load_file(folder / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(torch.equal(found[name], start[name]) for name in start if "proj" in name)
