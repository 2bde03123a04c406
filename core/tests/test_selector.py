from pathlib import Path

import pytest

from llmtune.data.selector import Selector, parse_selector
from llmtune.errors import UsageError


@pytest.mark.parametrize(
    ("text", "hub", "name", "subsets", "sample"),
    [
        ("alpaca-zh", None, "alpaca-zh", (), None),
        ("alpaca-zh#500", None, "alpaca-zh", (), 500),
        ("alpaca-zh#-1", None, "alpaca-zh", (), None),
        ("alpaca-zh#", None, "alpaca-zh", (), None),
        ("owner/name:a/b#20", None, "owner/name", ("a", "b"), 20),
        ("HF::owner/name", "HF", "owner/name", (), None),
        ("HF::owner/name:sub#3", "HF", "owner/name", ("sub",), 3),
        ("missing/file.jsonl#7", None, "missing/file.jsonl", (), 7),
    ],
)
def test_a_selector_is_hub_name_subsets_and_sample(text, hub, name, subsets, sample):
    assert parse_selector(text) == Selector(text=text, hub=hub, name=name, subsets=subsets, sample=sample)


@pytest.mark.parametrize("filename", ["a#b.jsonl", "a:b.jsonl", "a::b.jsonl", "a#5"])
def test_a_path_that_exists_is_never_split(tmp_path, filename):
    path = tmp_path / filename
    path.write_text("{}")
    selector = parse_selector(str(path))
    assert (selector.path, selector.hub, selector.subsets, selector.sample) == (path, None, (), None)


def test_a_path_that_exists_can_be_sampled_and_keeps_its_colon(tmp_path):
    path = tmp_path / "a:b.jsonl"
    path.write_text("{}")
    selector = parse_selector(f"{path}#5")
    assert (selector.path, selector.subsets, selector.sample) == (path, (), 5)


def test_a_path_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "d.jsonl").write_text("{}")
    assert parse_selector("~/d.jsonl").path == tmp_path / "d.jsonl"


def test_a_name_with_a_hub_is_no_path_even_where_a_folder_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/name").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_selector("owner/name").path == Path("owner/name")
    assert (parse_selector("HF::owner/name").path, parse_selector("HF::owner/name").hub) == (None, "HF")


@pytest.mark.parametrize("sample", ["many", "1.5", "1e3"])
def test_a_sample_that_is_no_number_is_refused_with_the_selector(sample, fails):
    problem = fails(UsageError, parse_selector, f"alpaca-zh#{sample}").problem
    assert (f"alpaca-zh#{sample}" in problem, "must be a number of rows" in problem) == (True, True)


@pytest.mark.parametrize("text", ["x" * 300, "~nobody-of-this-name/data.jsonl", "a\x00b"])
def test_a_text_that_can_be_no_path_is_a_name(text):
    assert (parse_selector(text).name, parse_selector(text).path) == (text, None)
