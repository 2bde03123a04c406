"""The tuner `lisa`: the kit, which layers are trained when, and what the optimizer keeps."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmtune.cli.main import main
from llmtune.errors import UsageError
from llmtune.interfaces.tuner import trainable_parameters
from llmtune.specs import RunContext, RunPlan
from llmtune.testing import ManifestTests, TunerTests, create, load_tiny, one_thread, tiny_model
from llmtune.testing.tuner import Training, logits, trainable

LAYERS = 4


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_lisa" / "llmtune-plugin.toml"


class LisaTests(TunerTests):
    several_adapters = False

    @pytest.fixture
    def name(self):
        return "lisa"


class TestLayersOfThePaper(LisaTests):
    """Two layers: all that the tiny model has."""


class TestOneLayer(LisaTests):
    @pytest.fixture
    def options(self):
        return {"lisa_activated_layers": 1, "lisa_step_interval": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of four layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    config = LlamaConfig.from_pretrained(folder, num_hidden_layers=LAYERS)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def lisa():
    def lisa(*, seed=42, **options):
        return create("tuner", "lisa", options, RunContext(plan=RunPlan(command="sft"), seed=seed))

    return lisa


@pytest.fixture
def training(folder):
    """Starts a training of a fresh model."""
    return lambda tuner: Training(tuner, tuner.prepare(load_tiny(folder).model), learning_rate=1e-2)


def without_weights(folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def drawn(model):
    """Return the numbers of the decoder layers that require gradients, all or none of each."""
    found = {number: {one.requires_grad for one in layer.parameters()} for number, layer in layers(model)}
    assert all(len(flags) == 1 for flags in found.values())
    return {number for number, flags in found.items() if flags == {True}}


def layers(model):
    return list(enumerate(model.model.layers))


def values(modules):
    return sum(one.numel() for module in modules for one in module.parameters())


def drawn_at(tuner, model, step):
    tuner.before_step(model, torch.optim.SGD(model.parameters()), step)
    return drawn(model)


def history(training, steps):
    """Train and return the layers that were drawn for each step."""
    found = []
    for _ in range(steps):
        training.fit(1)
        found.append(drawn(training.model))
    return found


@pytest.mark.parametrize("activated", [1, 2, 3, 4])
def test_what_is_trained_at_a_time_is_what_the_paper_says(training, lisa, activated):
    """Embedding + final norm + head + activated * layer, and two moments for each of their values."""
    tuner = lisa(lisa_activated_layers=activated)
    one = training(tuner)
    base = one.model.model
    one.fit(1)
    expected = values([base.embed_tokens, base.norm, one.model.lm_head]) + activated * values([base.layers[0]])
    assert trainable_parameters(one.model)[0] == expected
    moments = [value for state in one.optimizer.state.values() for key, value in state.items() if key != "step"]
    assert sum(value.numel() for value in moments) == tuner.optimizer_values(one.model) == 2 * expected


def test_memory_is_counted_on_a_model_without_weights(folder, lisa):
    tuner = lisa(lisa_activated_layers=1)
    with torch.device("meta"):
        model = tuner.prepare(without_weights(folder))
    total = trainable_parameters(model)
    assert total[0] == total[1]
    assert tuner.optimizer_values(model) == 2 * (total[1] - 3 * values([model.model.layers[0]]))


def test_layers_are_drawn_anew_after_every_interval_only(training, lisa):
    found = history(training(lisa(lisa_activated_layers=2, lisa_step_interval=3)), 30)
    assert all(len(one) == 2 for one in found)
    assert all(found[step] == found[step // 3 * 3] for step in range(30))
    assert set().union(*found) == set(range(LAYERS))


def test_every_layer_is_drawn_equally_often(folder, lisa):
    tuner = lisa(lisa_activated_layers=2, lisa_step_interval=5)
    model = tuner.prepare(load_tiny(folder).model)
    found = [number for step in range(0, 5 * 500, 5) for number in drawn_at(tuner, model, step)]
    # A binomial count of mean 250 has a standard deviation of 11.
    assert all(abs(found.count(number) - 250) < 55 for number in range(LAYERS))


def test_the_seed_decides(training, lisa):
    first, again, other = (
        history(training(lisa(seed=seed, lisa_activated_layers=1, lisa_step_interval=1)), 12) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_layers_that_are_not_drawn_stay_as_they_were(training, lisa):
    one = training(lisa(lisa_activated_layers=1, lisa_step_interval=1))
    for _ in range(12):
        before = {name: value.detach().clone() for name, value in one.model.named_parameters()}
        one.fit(1)
        changed = {name for name, value in one.model.named_parameters() if not torch.equal(value, before[name])}
        assert changed == trainable(one.model)


def test_the_optimizer_forgets_layers_that_are_frozen_again(training, lisa):
    one = training(lisa(lisa_activated_layers=1, lisa_step_interval=1))
    for _ in range(6):
        one.fit(1)
        known = {name for name, value in one.model.named_parameters() if value in one.optimizer.state}
        assert known == trainable(one.model)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6])  # 3 and 6 are ends of intervals
def test_a_run_that_is_resumed_anywhere_is_the_uninterrupted_one(training, lisa, folder, tmp_path, stop):
    options = {"lisa_activated_layers": 2, "lisa_step_interval": 3}
    tuner = lisa(**options)
    whole = training(tuner)
    whole.fit(stop)
    tuner.save(whole.model, tmp_path)
    state = whole.state()
    losses = whole.fit(8 - stop)

    again = lisa(**options)
    resumed = Training(again, again.load(load_tiny(folder).model, tmp_path, trainable=True), learning_rate=1e-2)
    resumed.resume(state)
    assert resumed.fit(8 - stop) == losses
    expected = dict(whole.model.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.named_parameters())


@pytest.mark.parametrize("lowest", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(folder, lisa, lowest):
    """Frozen layers below a trained one, and above it."""
    found = []
    for checkpointing in (False, True):
        tuner = lisa(lisa_activated_layers=1, lisa_step_interval=1)
        model = tuner.prepare(load_tiny(folder).model).train()
        wanted = 0 if lowest else LAYERS - 1
        next(step for step in range(100) if drawn_at(tuner, model, step) == {wanted})  # and stop there
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        ids = torch.arange(24)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
        assert found[-1].keys() == trainable(model)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_optimizer_may_be_wrapped_by_accelerate(training, lisa):
    from accelerate import Accelerator

    one = training(lisa(lisa_activated_layers=1, lisa_step_interval=1))
    torch_optimizer = one.optimizer
    one.optimizer = Accelerator(cpu=True).prepare(torch_optimizer)
    assert one.optimizer is not torch_optimizer
    one.fit(5)
    known = {name for name, value in one.model.named_parameters() if value in torch_optimizer.state}
    assert known == trainable(one.model)


@pytest.mark.parametrize("activated", [5, 40])
def test_more_layers_than_the_model_has_are_refused_before_weights_load(folder, lisa, activated):
    with torch.device("meta"):
        model = without_weights(folder)
    with pytest.raises(UsageError) as caught:
        lisa(lisa_activated_layers=activated).prepare(model)
    assert caught.value.problem == f"--lisa_activated_layers {activated}: the model has 4 decoder layers"
    assert caught.value.fix == "train at most 4 at a time"


def test_a_model_without_decoder_layers_is_refused(lisa, folder):
    model = without_weights(folder)
    model.config.num_hidden_layers = 3
    with pytest.raises(UsageError, match="has no list of 3 decoder layers"):
        lisa().prepare(model)


@pytest.mark.parametrize("flags", [{"lisa_activated_layers": -1}, {"lisa_step_interval": 0}])
def test_counts_below_the_least_are_refused(lisa, flags):
    with pytest.raises(UsageError, match=f"--{next(iter(flags))}"):
        lisa(**flags)


def test_transformers_loads_the_saved_model(training, lisa, tmp_path):
    from transformers import AutoModelForCausalLM

    tuner = lisa(lisa_activated_layers=1)
    one = training(tuner)
    one.fit(2)
    tuner.save(one.model, tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(one.model))


def test_the_plan_lets_processes_skip_frozen_layers_and_chooses_fp32_on_a_cpu():
    from llmtune_plugin_lisa.plugin import llmtune_adjust_plan

    precision = {} if torch.cuda.is_available() else {"dtype": "fp32"}
    assert llmtune_adjust_plan(plan=None, config=None) == {"ddp_find_unused_parameters": True, **precision}


def test_a_resumed_run_is_the_uninterrupted_run(folder, tmp_path):
    words = ["sft", "--sft_type", "full", "--lisa_activated_layers", "1", "--lisa_step_interval", "2"]
    words += ["--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(folder), "--disable_tqdm"]
    words += ["--dataset", "self-cognition#20", "--model_name", "Ada", "Ada", "--model_author", "Team", "Team"]
    words += ["--max_steps", "5", "--save_steps", "3", "--eval_steps", "3", "--save_only_model", "false"]
    words += ["--gradient_accumulation_steps", "2", "--learning_rate", "1e-2"]
    words += ["--add_output_dir_suffix", "false", "--save_total_limit", "-1", "--output_dir", str(tmp_path / "run")]
    assert main(words) == 0
    run = tmp_path / "run"
    (run / "checkpoint-5").rename(tmp_path / "uninterrupted")
    assert main([*words, "--resume_from_checkpoint", str(run / "checkpoint-3")]) == 0
    folders = (tmp_path / "uninterrupted", run / "checkpoint-5")
    expected, found = (load_file(one / "model.safetensors") for one in folders)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
