"""What every metric must hold."""

from __future__ import annotations

import math

import pytest

from llmtune.interfaces.metric import Metric

ANSWERS = ["The fox is quick.", "It rains in Paris today.", "你好，我是小智。", "42"]
WORSE = ["The cat sat.", "", "不知道。", "\n"]


class MetricTests:
    """Checks one metric. Give the fixture `metric`."""

    @pytest.fixture
    def metric(self) -> Metric:
        raise NotImplementedError("override the fixture `metric`: return your metric")

    def test_values_are_finite_numbers_with_the_deciding_one_among_them(self, metric: Metric) -> None:
        values = metric.measure(WORSE, ANSWERS)
        assert metric.best in values, f"measure() gave {list(values)}: name one of them in `best`"
        for name, value in values.items():
            assert isinstance(value, float | int), f"{name} is a {type(value).__name__}: return plain numbers"
            assert math.isfinite(value), f"{name} is {value} where answers are empty: a model may say nothing"

    def test_the_right_answers_are_better_than_others(self, metric: Metric) -> None:
        right, worse = (metric.measure(found, ANSWERS)[metric.best] for found in (ANSWERS, WORSE))
        better = right > worse if metric.higher_is_better else right < worse
        assert better, f"{metric.best} is {right} for the right answers and {worse} for others: see higher_is_better"

    def test_the_same_answers_have_the_same_values(self, metric: Metric) -> None:
        assert metric.measure(WORSE, ANSWERS) == metric.measure(WORSE, ANSWERS), "seed what is random in measure()"
