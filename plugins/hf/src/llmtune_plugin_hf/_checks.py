"""What transformers would say against optimizer, schedule and trackers only once the model is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames, TrainingArguments

from llmtune.api import did_you_mean

_OF_TORCH = {"adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd"}
"""Optimizers that need no further package; for them the Trainer need not be imported."""

_PACKAGES = {
    "azure_ml": ("azureml.core", "azureml-sdk"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub"),
    "dvclive": ("dvclive", "dvclive"),
    "flyte": ("flytekit", "flytekit"),
    "mlflow": ("mlflow", "mlflow"),
    "neptune": ("neptune", "neptune"),
    "swanlab": ("swanlab", "swanlab"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""Tracker -> the module it imports, the package that has it."""


def check_optimizer(name: str) -> Iterator[str]:
    """Yield why this optimizer cannot be built."""
    names = [one.value for one in OptimizerNames]
    if name not in names:
        yield _unknown("optim", name, names)
    elif name.startswith("galore"):  # with its package, too, transformers would miss the layers to project
        yield f"--optim {name}: GaLore is chosen with --sft_type full --use_galore true, not with --optim"
    elif name.startswith("apollo"):
        yield f"--optim {name}: APOLLO needs to be told its layers, which is not available yet; use another optimizer"
    elif name not in _OF_TORCH and (reason := _optimizer_problem(name)):
        yield f"--optim {name} cannot be used: {reason}"


def _optimizer_problem(name: str) -> str:
    import torch
    from transformers import Trainer

    # Its constructor would choose a device and join the other processes; the defaults are all that is read here.
    args = TrainingArguments.__new__(TrainingArguments)
    args.optim = OptimizerNames(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer.get_optimizer_cls_and_kwargs(args, torch.nn.Linear(1, 1))
    except Exception as error:
        return _one_line(error)
    return ""


def check_schedule(optimizer: Any) -> Iterator[str]:
    """Yield why this schedule cannot be built from `--lr_scheduler_kwargs`."""
    name, settings = optimizer.lr_scheduler_type, optimizer.lr_scheduler_kwargs or {}
    names = [one.value for one in SchedulerType]
    if name not in names:
        yield _unknown("lr_scheduler_type", name, names)
        return
    import torch
    from transformers import get_scheduler

    # The tuner's learning rate is not known yet; a high one fits every final rate.
    dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=optimizer.learning_rate or 1.0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            get_scheduler(name, dummy, num_warmup_steps=0, num_training_steps=10, scheduler_specific_kwargs=settings)
    except Exception as error:
        if settings:
            yield f"--lr_scheduler_kwargs does not fit --lr_scheduler_type {name}: {_one_line(error)}"
        else:
            yield f"--lr_scheduler_type {name} needs --lr_scheduler_kwargs: {_one_line(error)}"


def check_trackers(wanted: Sequence[str]) -> Iterator[str]:
    """Yield which trackers are unknown, and which miss their package."""
    if set(wanted) - {"all", "none", "tensorboard"}:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        names = [*INTEGRATION_TO_CALLBACK, "all", "none"]
        yield from (_unknown("report_to", name, names) for name in wanted if name not in names)
    for name in wanted:
        module, package = _PACKAGES.get(name, ("", ""))
        if module and not _installed(module):
            yield f"--report_to {name} needs {package}: pip install {package}"


def _installed(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of the package around it
        return False
    return spec is not None and spec.origin is not None  # a folder such as wandb/ has no origin


def _unknown(flag: str, name: str, known: Sequence[str]) -> str:
    return f"--{flag} {name!r} is unknown; {did_you_mean(name, known) or 'known are ' + ', '.join(known)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
