"""Using the model in the middle of its training, for something else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def set_aside(model: Any) -> Iterator[None]:
    """Let the block answer with a model that is being trained; training goes on as if the block had not been.

    In evaluation mode no layer recomputes its activations, and the cache of keys and values, which the Trainer of
    transformers switches off, is on. Afterwards every module is in its own mode again, and random numbers go on where
    they were: python's, numpy's, torch's and those of every GPU.
    """
    modes = [(module, module.training) for module in model.modules()]
    cached = getattr(model.config, "use_cache", None)
    model.eval()
    if cached is not None:
        model.config.use_cache = True
    try:
        with _random_numbers_kept():
            yield
    finally:
        for module, training in modes:
            module.training = training
        if cached is not None:
            model.config.use_cache = cached


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    import numpy as np
    import torch

    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
