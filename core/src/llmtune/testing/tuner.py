"""What every tuner must hold, seen on a tiny model."""

from __future__ import annotations

import atexit
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmtune.config.optimizer import OptimizerSection
from llmtune.errors import CheckpointError, UsageError
from llmtune.interfaces.tuner import Tuner, trainable_parameters
from llmtune.model.skeleton import skeleton
from llmtune.plugins.catalogue import discover
from llmtune.specs import RunContext
from llmtune.testing.build import create, run_context
from llmtune.testing.tiny import load_tiny, one_thread, tiny_model

_WEIGHTS = re.compile(r".*\.(safetensors|json)")
_LOAD = """
import json, sys, traceback
from pathlib import Path
import torch
from llmtune.testing import create, load_tiny
from llmtune.testing.tuner import logits
torch.set_num_threads(1)
for line in sys.stdin:
    name, base, saved, found = json.loads(line)
    try:
        model = create("tuner", name).load(load_tiny(Path(base)).model, Path(saved))
        Path(found).write_text(json.dumps(logits(model).flatten().tolist()))
        print("loaded", flush=True)
    except Exception:
        print("failed", json.dumps(traceback.format_exc()), flush=True)
"""


class TunerTests:
    """Checks one tuner. Give the fixture `name`, and `options` where the defaults are not what you test.

    Loading always uses a tuner with default options: what `load` needs must be in the saved folder.
    """

    starts_as_identity = True
    """Whether a prepared model that was not trained yet answers as the base does, bit for bit."""
    mergeable = True
    """Whether `merge` gives a plain model; else it must raise `UsageError`."""
    several_adapters = True
    """Whether one base can hold several of them (`add`, `choose`)."""
    target_loss_ratio = 1 / 3
    """What share of its first loss a fixed batch must fall below after `steps` steps."""
    steps = 60
    learning_rate = 3e-2

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        with one_thread():
            yield

    @pytest.fixture
    def name(self) -> str:
        """The tuner's name in the catalogue."""
        raise NotImplementedError("override the fixture `name`: return your tuner's name in the manifest")

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Flags of the tuner, with typed values."""
        return {}

    @pytest.fixture
    def run(self) -> RunContext:
        """The run that the hook gets."""
        return run_context(steps=self.steps)

    @pytest.fixture
    def model_folder(self, tmp_path: Path) -> Path:
        return tiny_model(tmp_path / "base", hidden_size=64, initializer_range=0.2)

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        """An empty folder to save into."""
        folder = tmp_path / "saved"
        folder.mkdir()
        return folder

    @pytest.fixture
    def load_base(self, model_folder: Path) -> Callable[[], Any]:
        """Loads the base model afresh, each time it is called."""
        return lambda: load_tiny(model_folder).model

    @pytest.fixture
    def tuner(self, name: str, options: dict[str, Any], run: RunContext) -> Tuner:
        tuner: Tuner = create("tuner", name, options, run)
        return tuner

    @pytest.fixture
    def loader(self, name: str, run: RunContext) -> Tuner:
        """A second tuner, with default options."""
        tuner: Tuner = create("tuner", name, None, run)
        return tuner

    @pytest.fixture
    def prepared(self, tuner: Tuner, load_base: Callable[[], Any]) -> Any:
        torch.manual_seed(0)  # adapters start from random numbers
        return tuner.prepare(load_base())

    def test_prepare_leaves_something_to_train(self, prepared: Any) -> None:
        assert trainable(prepared), "no parameter requires a gradient: set requires_grad_(True) on yours in prepare()"

    def test_it_prepares_a_model_without_weights(self, tuner: Tuner, prepared: Any, model_folder: Path) -> None:
        rehearsed = tuner.prepare(skeleton(model_folder, (), torch.float32))
        assert trainable_parameters(rehearsed) == trainable_parameters(prepared), (
            "prepare() makes other parameters of a model on the device meta: let it read shapes, not values"
        )

    def test_a_fresh_model_answers_as_the_base(self, prepared: Any, load_base: Callable[[], Any]) -> None:
        if not self.starts_as_identity:
            pytest.skip("starts_as_identity = False")
        difference = (logits(prepared) - logits(load_base())).abs().max().item()
        assert difference == 0, (
            f"logits differ by up to {difference:.2g} before training: let the new parameters add zero at first, "
            "or set starts_as_identity = False"
        )

    def test_training_changes_what_is_trainable_and_nothing_else(self, tuner: Tuner, prepared: Any) -> None:
        before = {name: value.detach().clone() for name, value in _tensors(prepared)}
        names = trainable(prepared)
        Training(tuner, prepared, learning_rate=self.learning_rate).fit(5)
        changed = {name for name, value in _tensors(prepared) if not torch.equal(value, before[name])}
        assert changed <= names, (
            f"frozen parameters changed: {sorted(changed - names)}: nothing but the optimizer may write to weights"
        )
        assert names <= changed, (
            f"trainable parameters stayed as they were: {sorted(names - changed)}: they take no part in the forward "
            "pass, so freeze them in prepare()"
        )

    def test_the_loss_on_a_fixed_batch_falls(self, tuner: Tuner, prepared: Any) -> None:
        losses = Training(tuner, prepared, learning_rate=self.learning_rate).fit(self.steps)
        assert losses[-1] < self.target_loss_ratio * losses[0], (
            f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} in {self.steps} steps: check that gradients reach "
            "your parameters, or set target_loss_ratio, steps and learning_rate for your method"
        )

    def test_another_process_loads_the_saved_model_bit_for_bit(
        self, name: str, tuner: Tuner, prepared: Any, model_folder: Path, saved: Path, tmp_path: Path
    ) -> None:
        Training(tuner, prepared, learning_rate=self.learning_rate).fit(5)
        tuner.save(prepared, saved)
        found = tmp_path / "logits.json"
        answer = _ask_another_process(name, str(model_folder), str(saved), str(found))
        assert answer == "loaded", json.loads(answer.removeprefix("failed "))
        expected = logits(prepared)
        assert torch.equal(torch.tensor(json.loads(found.read_text())).view_as(expected), expected), (
            "a loaded model gives other logits than the saved one: save every trained tensor in its own dtype, and "
            "every option that the forward pass depends on"
        )

    def test_a_resumed_training_is_the_uninterrupted_one(
        self, tuner: Tuner, prepared: Any, load_base: Callable[[], Any], saved: Path
    ) -> None:
        training = Training(tuner, prepared, learning_rate=self.learning_rate)
        training.fit(3)
        tuner.save(prepared, saved)
        state = training.state()
        training.fit(4)
        loaded = tuner.load(load_base(), saved, trainable=True)
        resumed = Training(tuner, loaded, learning_rate=self.learning_rate)
        resumed.resume(state)
        resumed.fit(4)
        assert trainable(loaded) == trainable(prepared), "load(trainable=True) and prepare() train other parameters"
        values = dict(prepared.named_parameters())
        differing = [name for name, value in loaded.named_parameters() if not torch.equal(value, values[name])]
        assert not differing, (
            f"after 3 steps, a restart and 4 more, {', '.join(differing)} differ from 7 steps without one: load() must "
            "restore what was trained, training_state() whatever else a step depends on"
        )

    def test_the_saved_folder_holds_only_safetensors_and_json(self, tuner: Tuner, prepared: Any, saved: Path) -> None:
        tuner.save(prepared, saved)
        files = sorted(path.name for path in saved.rglob("*") if path.is_file())
        other = [name for name in files if not _WEIGHTS.fullmatch(name)]
        assert not other, f"save() wrote {', '.join(other)}: write tensors with safetensors, everything else as JSON"
        assert any(name.endswith(".safetensors") for name in files), (
            f"save() wrote no .safetensors file, only {files or 'nothing'}: write the trained tensors in save()"
        )

    def test_the_saved_folder_holds_no_more_values_than_it_needs(
        self, name: str, tuner: Tuner, prepared: Any, saved: Path
    ) -> None:
        tuner.save(prepared, saved)
        stored = sum(tensor.numel() for path in saved.glob("*.safetensors") for tensor in load_file(path).values())
        whole = discover().find("tuner", name).facts.get("saves") == "model"
        needed = trainable_parameters(prepared)[1] if whole else self.stored_values(prepared)
        assert stored == needed, f"save() wrote {stored} values, {needed} are needed"

    def stored_values(self, model: Any) -> int:
        """Return how many values a checkpoint of a prepared model needs, where it is an adapter."""
        return trainable_parameters(model)[0]

    def test_loading_a_folder_without_the_files_is_a_checkpoint_error(
        self, tuner: Tuner, load_base: Callable[[], Any], saved: Path
    ) -> None:
        try:
            tuner.load(load_base(), saved)
        except CheckpointError:
            return
        except Exception as error:
            problem = f"load() of an empty folder raised {type(error).__name__}: {error}"
        else:
            problem = "load() of an empty folder went through"
        raise AssertionError(f"{problem}: raise llmtune.api.CheckpointError and name the missing file")

    def test_a_merged_model_answers_the_same_and_is_plain(self, tuner: Tuner, prepared: Any, saved: Path) -> None:
        self._check_merge(tuner, prepared, saved)

    def test_a_merged_model_over_tied_embeddings_answers_the_same(
        self, tuner: Tuner, tmp_path: Path, saved: Path
    ) -> None:
        if self.mergeable:
            tied = tiny_model(tmp_path / "tied", hidden_size=64, initializer_range=0.2, tied=True)
            torch.manual_seed(0)
            self._check_merge(tuner, tuner.prepare(load_tiny(tied).model), saved)

    def _check_merge(self, tuner: Tuner, prepared: Any, saved: Path) -> None:
        from transformers import AutoModelForCausalLM

        Training(tuner, prepared, learning_rate=1e-3).fit(5)
        if not self.mergeable:
            with pytest.raises(UsageError):
                tuner.merge(prepared)
            return
        prepared.double()  # how float32 rounds differs from processor to processor
        expected = logits(prepared)
        merged = tuner.merge(prepared)
        difference = (logits(merged) - expected).abs().max().item()
        assert difference < 1e-6, (
            f"merging moved the logits by up to {difference:.2g}: merge() must add exactly what the forward pass adds"
        )
        merged.float().save_pretrained(saved)
        plain = AutoModelForCausalLM.from_pretrained(saved)
        assert set(plain.state_dict()) == set(merged.state_dict()), "merge() must return modules of transformers alone"
        assert torch.equal(logits(plain), logits(merged))
        assert not list(saved.glob("adapter*")), "the merged folder holds traces of an adapter"

    def test_several_adapters_answer_by_name(
        self, tuner: Tuner, loader: Tuner, prepared: Any, load_base: Callable[[], Any], saved: Path
    ) -> None:
        if not self.several_adapters:
            tuner.save(prepared, saved)
            with pytest.raises(NotImplementedError):
                loader.add(prepared, saved, "second")
            return
        answers = []
        for number in (1, 2):
            Training(tuner, prepared, learning_rate=self.learning_rate).fit(2)
            tuner.save(prepared, saved / str(number))
            answers.append(logits(prepared))
        model = loader.add(loader.load(load_base(), saved / "1"), saved / "2", "second")
        for name, expected in ((None, answers[0]), ("second", answers[1]), (None, answers[0])):
            loader.choose(model, name)
            assert torch.equal(logits(model), expected), f"choose({name!r}) gives other logits than its adapter has"


@cache
def _another_process() -> subprocess.Popen[str]:
    """Start one process for all tests of a session: importing torch and transformers takes longest."""
    process = subprocess.Popen([sys.executable, "-c", _LOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def _ask_another_process(*words: str) -> str:
    """Let the other process load a model, and return its answer."""
    process = _another_process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(words) + "\n")
    process.stdin.flush()
    lines = (line.strip() for line in process.stdout)
    return next(line for line in lines if line.startswith(("loaded", "failed")))


class Training:
    """A loop on one fixed batch that calls a tuner as a trainer backend does."""

    def __init__(self, tuner: Tuner, model: Any, *, learning_rate: float) -> None:
        self.tuner, self.model, self.step = tuner, model, 0
        parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        factors = tuner.learning_rates(model)
        groups = [{"params": [one], "lr": learning_rate * factors.get(name, 1)} for name, one in parameters.items()]
        settings = OptimizerSection(learning_rate=learning_rate)
        self.optimizer: Any = tuner.optimizer(model, settings) or torch.optim.AdamW(groups, lr=learning_rate)

    def fit(self, steps: int) -> list[float]:
        """Train and return the loss of every step; dropout is the same for a step whenever it is taken."""
        ids = batch(self.model.config.vocab_size)
        self.model.train()
        losses = []
        for _ in range(steps):
            torch.manual_seed(self.step)
            self.tuner.before_step(self.model, self.optimizer, self.step)
            loss = self.model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(loss, ids[:, 1:].flatten())
            losses.append(loss.item())
            penalty = self.tuner.penalty(self.model)
            (loss if penalty is None else loss + penalty).backward()
            self.optimizer.step()
            self.tuner.after_step(self.model, self.step)
            self.optimizer.zero_grad()
            self.step += 1
        return losses

    def state(self) -> tuple[int, bytes]:
        """Return the step and the state of optimizer and tuner, as a checkpoint stores it."""
        stored = io.BytesIO()
        torch.save([self.optimizer.state_dict(), dict(self.tuner.training_state(self.model))], stored)
        return self.step, stored.getvalue()

    def resume(self, state: tuple[int, bytes]) -> None:
        """Take back what `state` gave; nothing but tensors and plain values is read."""
        self.step = state[0]
        optimizer, tuner = torch.load(io.BytesIO(state[1]), weights_only=True)
        self.optimizer.load_state_dict(optimizer)
        self.tuner.load_training_state(self.model, tuner)


def trainable(model: Any) -> set[str]:
    """Return the names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def batch(vocabulary: int) -> torch.Tensor:
    """Return the same ids every time: (4, 24) int64; each row repeats three tokens, so that it can be learned."""
    return torch.randint(0, vocabulary, (4, 3), generator=torch.Generator().manual_seed(0)).repeat(1, 8)


def fit(model: Any, *, steps: int, learning_rate: float) -> list[float]:
    """Train on the fixed batch with AdamW and return the loss of every step."""
    return Training(_Plain(), model, learning_rate=learning_rate).fit(steps)


class _Plain(Tuner):
    """Leaves the training alone."""

    def prepare(self, model: Any) -> Any:
        return model

    def save(self, model: Any, folder: Path) -> None:
        raise NotImplementedError

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        raise NotImplementedError


def logits(model: Any) -> torch.Tensor:
    """Return the logits of the fixed batch, without dropout: (4, 24, vocabulary)."""
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=batch(model.config.vocab_size)).logits
    return found
