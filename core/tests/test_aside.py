"""A model that is used in the middle of its training is as it was afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtune.testing import load_tiny, tiny_model
from llmtune.train.aside import set_aside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def numbers() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


@pytest.mark.parametrize("fails", [False, True])
def test_modes_cache_and_random_numbers_are_as_before(folder: Path, fails: bool) -> None:
    model = load_tiny(folder).model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = numbers()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    try:
        with set_aside(model):
            assert not any(module.training for module in model.modules())
            assert model.config.use_cache is True
            torch.manual_seed(7)
            numbers()
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert [module.training for module in model.modules()] == modes
    assert model.config.use_cache is False
    assert numbers() == expected
