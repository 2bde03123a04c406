"""Jobs for the tests of the trainer `hf`, on a tiny model."""

import pytest
import torch

from llmtune.config.distributed import DistributedSection
from llmtune.config.evaluation import EvaluationSection
from llmtune.config.optimizer import OptimizerSection
from llmtune.config.saving import SavingSection
from llmtune.config.tracking import TrackingSection
from llmtune.config.training import TrainingSection
from llmtune.interfaces.trainer import TrainingJob
from llmtune.testing import create, load_tiny, one_thread, tiny_model


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("tiny"))


class Log:
    """A callback that keeps what is logged."""

    def __init__(self):
        self.lines = []

    def on_log(self, step, values):
        self.lines.append((step, values))

    def values(self, name):
        return {step: line[name] for step, line in self.lines if name in line}


SECTIONS = {
    "training": TrainingSection,
    "optimizer": OptimizerSection,
    "evaluation": EvaluationSection,
    "saving": SavingSection,
    "tracking": TrackingSection,
    "distributed": DistributedSection,
}


def sections(settings):
    """Spread settings over the sections that have them; a name that none has is a mistake of the test."""
    names = {flag for section in SECTIONS.values() for flag in section.model_fields}
    assert set(settings) <= names, set(settings) - names
    return {
        name: section(**{flag: value for flag, value in settings.items() if flag in section.model_fields})
        for name, section in SECTIONS.items()
    }


@pytest.fixture
def make_job(folder, tmp_path):
    """Builds a job on a fresh base model with `sft_type`; keywords are training settings."""

    def make(
        rows, *, name="run", sft_type="full", options=None, eval_rows=(), resume_from=None, packed=False, **settings
    ):
        tuner = create("tuner", sft_type, options)
        torch.manual_seed(0)
        loaded = load_tiny(folder)
        model = tuner.load(loaded.model, resume_from, trainable=True) if resume_from else tuner.prepare(loaded.model)
        run_folder = tmp_path / name
        run_folder.mkdir(exist_ok=True)
        defaults = {
            "gradient_checkpointing": False,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "warmup_ratio": 0.0,
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
            "report_to": ["none"],
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        return TrainingJob(
            model=model,
            tokenizer=loaded.tokenizer,
            tuner=tuner,
            train_rows=rows,
            eval_rows=list(eval_rows),
            packed=packed,
            **sections({**defaults, **settings}),
            folder=run_folder,
            resume_from=resume_from,
            callbacks=[Log()],
            write_extras=lambda path: None,
            checkpoint_saved=lambda path, is_best: None,
        )

    return make
