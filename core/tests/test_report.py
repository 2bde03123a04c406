import json

from llmtune.data.report import DataReport
from llmtune.errors import DataError


def test_drops_are_counted_by_kind_with_the_first_three_examples():
    report = DataReport(read=10)
    for number in range(1, 6):
        report.drop(f"{number} tokens", f"d.jsonl:{number}", kind="too long")
    report.drop("empty", "d.jsonl:9")
    assert report.dropped == {"too long": 5, "empty": 1}
    assert report.examples["too long"] == [f"d.jsonl:{number}: {number} tokens" for number in (1, 2, 3)]
    assert report.dropped_ratio == 0.6


def test_nothing_read_is_nothing_dropped():
    assert DataReport().dropped_ratio == 0.0


def test_lines_name_the_counts_then_the_most_frequent_reason_first():
    report = DataReport(read=9, train=5, validation=1, tokens=70, target_tokens=30, truncated=2)
    report.drop("rare", "a:1")
    report.drop("often", "a:2")
    report.drop("often", "a:3")
    first, *rest = report.lines()
    numbers = ("9 read", "5 to train on", "1 to validate", "70 tokens", "30 are targets", "2 truncated")
    assert [number for number in numbers if number not in first] == []
    assert rest == ["dropped 2: often", "    a:2", "    a:3", "dropped 1: rare", "    a:1"]


def test_rows_that_are_too_long_are_answered_with_the_flags_for_it(fails):
    report = DataReport(read=2)
    report.drop("empty", "a:1")
    assert "--max_length" not in fails(DataError, report.check_dropped, 0.1).fix
    report.drop("9 tokens", "a:2", kind="longer than --max_length")
    assert "raise --max_length, or --truncation_strategy" in fails(DataError, report.check_dropped, 0.1).fix


def test_the_report_is_json():
    report = DataReport(read=1)
    report.drop("empty", "a:1")
    stored = json.loads(json.dumps(report.as_json()))
    assert (stored["read"], stored["dropped"], stored["examples"]) == (1, {"empty": 1}, {"empty": ["a:1"]})
