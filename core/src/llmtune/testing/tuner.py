"""What every tuner must hold, seen on a tiny model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtune.errors import CheckpointError
from llmtune.interfaces.tuner import Tuner
from llmtune.specs import RunContext
from llmtune.testing.build import create, run_context
from llmtune.testing.tiny import load_tiny, one_thread, tiny_model

_WEIGHTS = re.compile(r".*\.(safetensors|json)")


class TunerTests:
    """Checks one tuner. Give the fixture `name`, and `options` where the defaults are not what you test.

    Loading always uses a tuner with default options: what `load` needs must be in the saved folder.
    """

    starts_as_identity = True
    """Whether a prepared model that was not trained yet answers as the base does."""
    target_loss_ratio = 0.97
    """What share of its first loss a fixed batch must fall below after `steps` steps. The tiny model's
    head is random and frozen for most tuners, which leaves them little to gain."""
    steps = 30
    learning_rate = 1e-2

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
        return run_context()

    @pytest.fixture
    def model_folder(self, tmp_path: Path) -> Path:
        return tiny_model(tmp_path / "base")

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

    def test_a_fresh_model_answers_as_the_base(self, prepared: Any, load_base: Callable[[], Any]) -> None:
        if not self.starts_as_identity:
            pytest.skip("starts_as_identity = False")
        difference = (logits(prepared) - logits(load_base())).abs().max().item()
        assert difference < 1e-5, (
            f"logits differ by up to {difference:.2g} before training: let the new parameters add zero at first, "
            "or set starts_as_identity = False"
        )

    def test_training_changes_what_is_trainable_and_nothing_else(self, prepared: Any) -> None:
        before = {name: value.detach().clone() for name, value in prepared.named_parameters()}
        names = trainable(prepared)
        fit(prepared, steps=5, learning_rate=self.learning_rate)
        changed = {name for name, value in prepared.named_parameters() if not torch.equal(value, before[name])}
        assert changed <= names, (
            f"frozen parameters changed: {sorted(changed - names)}: nothing but the optimizer may write to weights"
        )
        assert names <= changed, (
            f"trainable parameters stayed as they were: {sorted(names - changed)}: they take no part in the forward "
            "pass, so freeze them in prepare()"
        )

    def test_the_loss_on_a_fixed_batch_falls(self, prepared: Any) -> None:
        losses = fit(prepared, steps=self.steps, learning_rate=self.learning_rate)
        assert losses[-1] < self.target_loss_ratio * losses[0], (
            f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} in {self.steps} steps: check that gradients reach "
            "your parameters, or set target_loss_ratio, steps and learning_rate for your method"
        )

    def test_load_gives_the_saved_model_bit_for_bit(
        self, tuner: Tuner, loader: Tuner, prepared: Any, load_base: Callable[[], Any], saved: Path
    ) -> None:
        fit(prepared, steps=5, learning_rate=self.learning_rate)
        tuner.save(prepared, saved)
        loaded = loader.load(load_base(), saved)
        assert torch.equal(logits(loaded), logits(prepared)), (
            "a loaded model gives other logits than the saved one: save every trained tensor in its own dtype, and "
            "every option that the forward pass depends on"
        )

    def test_a_loaded_model_can_be_trained_on(
        self, tuner: Tuner, prepared: Any, load_base: Callable[[], Any], saved: Path
    ) -> None:
        first = fit(prepared, steps=self.steps, learning_rate=self.learning_rate)
        tuner.save(prepared, saved)
        loaded = tuner.load(load_base(), saved, trainable=True)
        assert trainable(loaded) == trainable(prepared), (
            f"load(trainable=True) trains {sorted(trainable(loaded))}, prepare() trained {sorted(trainable(prepared))}:"
            " both must train the same parameters"
        )
        more = fit(loaded, steps=5, learning_rate=self.learning_rate)
        assert more[0] < first[0], (
            "training went on from the first loss: load() must restore what was trained, also with trainable=True"
        )

    def test_the_saved_folder_holds_only_safetensors_and_json(self, tuner: Tuner, prepared: Any, saved: Path) -> None:
        tuner.save(prepared, saved)
        files = sorted(path.name for path in saved.rglob("*") if path.is_file())
        other = [name for name in files if not _WEIGHTS.fullmatch(name)]
        assert not other, f"save() wrote {', '.join(other)}: write tensors with safetensors, everything else as JSON"
        assert any(name.endswith(".safetensors") for name in files), (
            f"save() wrote no .safetensors file, only {files or 'nothing'}: write the trained tensors in save()"
        )

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

    def test_a_merged_model_answers_the_same_and_is_plain(
        self, tuner: Tuner, prepared: Any, load_base: Callable[[], Any]
    ) -> None:
        fit(prepared, steps=5, learning_rate=self.learning_rate)
        expected = logits(prepared)
        merged = tuner.merge(prepared)
        difference = (logits(merged) - expected).abs().max().item()
        assert difference < 1e-5, (
            f"merging moved the logits by up to {difference:.2g}: merge() must add exactly what the forward pass adds"
        )
        names, plain = set(merged.state_dict()), set(load_base().state_dict())
        assert names == plain, (
            f"merging left or lost parameters: {sorted(names ^ plain)}: merge() must return the base's own modules"
        )


def trainable(model: Any) -> set[str]:
    """Return the names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def batch(vocabulary: int) -> torch.Tensor:
    """Return the same ids every time: (4, 24) int64."""
    return torch.randint(0, vocabulary, (4, 24), generator=torch.Generator().manual_seed(0))


def fit(model: Any, *, steps: int, learning_rate: float) -> list[float]:
    """Train on the fixed batch with AdamW and return the loss of every step."""
    torch.manual_seed(0)  # dropout
    ids = batch(model.config.vocab_size)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=learning_rate)
    model.train()
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def logits(model: Any) -> torch.Tensor:
    """Return the logits of the fixed batch, without dropout: (4, 24, vocabulary)."""
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=batch(model.config.vocab_size)).logits
    return found
