"""What the trainer `hf` finds wrong before a model is loaded."""

import sys
import warnings
from types import SimpleNamespace

import pytest
from transformers import TrainingArguments

from llmtune.config.distributed import DistributedSection
from llmtune.config.optimizer import OptimizerSection
from llmtune.config.tracking import TrackingSection
from llmtune_plugin_hf.plugin import llmtune_check_plan


def split(settings):
    """Return the sections that the checks read."""
    optimizer = {flag: value for flag, value in settings.items() if flag in OptimizerSection.model_fields}
    tracking = {flag: value for flag, value in settings.items() if flag not in optimizer}
    return {"optimizer": OptimizerSection(**optimizer), "tracking": TrackingSection(**tracking)}


class TestPlan:
    """What is wrong is said before a model is loaded, without a device and without noise."""

    @pytest.fixture
    def lines(self, capfd, caplog):
        def lines(**settings):
            config = SimpleNamespace(**split(settings), distributed=DistributedSection())
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                found = list(llmtune_check_plan(plan=None, config=config))
            ours = [record.message for record in caplog.records if record.name.startswith("transformers")]
            assert ([str(one.message) for one in seen if one.category is not DeprecationWarning], ours) == ([], [])
            assert capfd.readouterr().out == ""
            assert all("\n" not in line for line in found)
            return found

        return lines

    def test_the_defaults_are_fine(self, lines):
        assert lines() == []

    @pytest.mark.parametrize(
        "name",
        ["linear", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"],
    )
    def test_schedules_that_need_nothing_are_fine(self, lines, name):
        assert lines(lr_scheduler_type=name) == []

    @pytest.mark.parametrize(
        ("name", "kwargs"),
        [
            ("cosine", {"num_cycles": 2}),
            ("cosine_with_min_lr", {"min_lr": 1e-6}),
            ("warmup_stable_decay", {"num_decay_steps": 100}),
            ("polynomial", {"lr_end": 1e-3}),  # the tuner's learning rate is not known here
        ],
    )
    def test_settings_that_fit_are_fine(self, lines, name, kwargs):
        assert lines(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs) == []

    @pytest.mark.parametrize(
        ("name", "kwargs", "reason"),
        [
            ("cosine", {"bogus": 1}, "'bogus'"),
            ("cosine", {"num_cycles": "many"}, "many"),
            ("linear", {"num_training_steps": 1}, "num_training_steps"),
            ("warmup_stable_decay", {"num_stable_steps": 1}, "num_decay_steps"),
        ],
    )
    def test_settings_that_do_not_fit_the_schedule_are_named(self, lines, name, kwargs, reason):
        (line,) = lines(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs)
        assert line.startswith(f"--lr_scheduler_kwargs does not fit --lr_scheduler_type {name}: ")
        assert reason in line

    def test_a_given_learning_rate_counts(self, lines):
        (line,) = lines(lr_scheduler_type="polynomial", lr_scheduler_kwargs={"lr_end": 1e-3}, learning_rate=1e-4)
        assert "lr_end" in line

    @pytest.mark.parametrize(
        ("name", "needed"), [("cosine_with_min_lr", "min_lr"), ("warmup_stable_decay", "num_decay_steps")]
    )
    def test_settings_that_a_schedule_needs_are_named(self, lines, name, needed):
        (line,) = lines(lr_scheduler_type=name)
        assert line.startswith(f"--lr_scheduler_type {name} needs --lr_scheduler_kwargs: ")
        assert needed in line

    def test_unknown_names_are_answered_with_near_ones_and_all_together(self, lines):
        found = lines(optim="adamw_troch", lr_scheduler_type="cosin", report_to=["wandbb", "tensorboard"])
        assert found == [
            "--optim 'adamw_troch' is unknown; did you mean adamw_torch?",
            "--lr_scheduler_type 'cosin' is unknown; did you mean cosine?",
            "--report_to 'wandbb' is unknown; did you mean wandb?",
        ]

    @pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"])
    def test_optimizers_of_torch_are_fine(self, lines, name):
        assert lines(optim=name) == []

    def test_an_optimizer_without_its_package_says_which(self, lines, monkeypatch):
        monkeypatch.setattr("transformers.trainer_optimizer.is_lomo_available", lambda: False)
        (line,) = lines(optim="adalomo")
        assert line.startswith("--optim adalomo cannot be used: ")
        assert "pip install lomo-optim" in line

    def test_an_optimizer_that_takes_the_model_is_fine_with_its_package(self, lines, monkeypatch):
        monkeypatch.setattr("transformers.trainer_optimizer.is_lomo_available", lambda: True)
        monkeypatch.setitem(sys.modules, "lomo_optim", SimpleNamespace(AdaLomo=object, Lomo=object))
        assert lines(optim="adalomo") == []

    def test_looking_at_an_optimizer_chooses_no_device_and_joins_no_processes(self, lines, monkeypatch):
        def refuse(args):
            raise AssertionError("a device was chosen")

        monkeypatch.setattr(TrainingArguments, "__post_init__", refuse)
        monkeypatch.setattr(TrainingArguments, "_setup_devices", property(refuse))
        assert lines(optim="ademamix") == []

    @pytest.mark.parametrize("installed", [False, True])
    def test_galore_is_another_flag(self, lines, monkeypatch, installed):
        monkeypatch.setattr("transformers.trainer_optimizer.is_galore_torch_available", lambda: installed)
        (line,) = lines(optim="galore_adamw")
        assert line == "--optim galore_adamw: GaLore is chosen with --sft_type full --use_galore true, not with --optim"

    def test_apollo_is_not_available_yet(self, lines):
        (line,) = lines(optim="apollo_adamw")
        assert line.startswith("--optim apollo_adamw: APOLLO needs")
        assert "not available yet" in line

    @pytest.mark.parametrize("names", [["all"], ["none"], ["tensorboard"], ["none", "tensorboard"]])
    def test_trackers_that_are_there_are_fine(self, lines, names):
        assert lines(report_to=names) == []

    def test_an_unknown_tracker_lists_those_there_are(self, lines):
        (line,) = lines(report_to=["bogus"])
        assert line.startswith("--report_to 'bogus' is unknown; ")
        assert all(name in line for name in ("tensorboard", "wandb", "all", "none"))

    @pytest.mark.parametrize(("name", "package"), [("trackio", "trackio"), ("azure_ml", "azureml-sdk")])
    def test_a_tracker_without_its_package_says_how_to_get_it(self, lines, monkeypatch, tmp_path, name, package):
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        (tmp_path / name).mkdir()  # where some keep their runs, as wandb does: no package
        assert lines(report_to=[name]) == [f"--report_to {name} needs {package}: pip install {package}"]

    def test_a_tracker_with_its_package_is_fine(self, lines, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        (tmp_path / "trackio").mkdir()
        (tmp_path / "trackio" / "__init__.py").touch()
        assert lines(report_to=["trackio"]) == []
