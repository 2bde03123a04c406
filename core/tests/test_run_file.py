from pathlib import Path

import pytest

from llmtune.config.run_file import read_run_file
from llmtune.errors import UsageError


@pytest.fixture
def read(tmp_path):
    def write_and_read(text, name="run.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_run_file(path)

    return write_and_read


def test_yaml_is_read_with_the_line_of_each_option(read):
    values, lines = read("# a run\nmodel_type: m\n\ndataset:\n  - a\n  - b\nuse-dora: true\n")
    assert values == {"model_type": "m", "dataset": ["a", "b"], "use_dora": True}
    assert lines == {"model_type": 2, "dataset": 4, "use_dora": 7}


@pytest.mark.parametrize("indent", ["  ", "\t", ""], ids=["spaces", "tab", "none"])
def test_json_is_read_with_the_line_of_each_option(read, indent):
    values, lines = read(f'{{\n{indent}"seed": 1,\n{indent}"logging-dir": null\n}}\n', "run.json")
    assert (values, lines) == ({"seed": 1, "logging_dir": None}, {"seed": 2, "logging_dir": 3})


def test_json_takes_what_json_takes(read):
    assert read(r'{"output_dir": "a\/b", "system": "\u4f60\ud83d\ude00"}', "run.json")[0] == {
        "output_dir": "a/b",
        "system": "你😀",
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_sets_nothing(read, text):
    assert read(text) == ({}, {})


def test_a_byte_order_mark_is_no_part_of_the_first_option(read):
    assert read(b"\xef\xbb\xbfseed: 1\n") == ({"seed": 1}, {"seed": 1})


@pytest.mark.parametrize("key", ["on", "1", "~", "1.5"])
def test_every_option_has_a_line_whatever_yaml_makes_of_its_name(read, key):
    values, lines = read(f"{key}: 1\n")
    assert list(lines) == list(values)


@pytest.mark.parametrize(("text", "kind"), [("- seed\n- 1\n", "list"), ("seed 1\n", "str"), ("3\n", "int")])
def test_a_file_that_is_no_mapping_says_what_it_is(read, text, kind, fails):
    problem = fails(UsageError, read, text).problem
    assert ("run.yaml" in problem, "must be a mapping" in problem, f"found a {kind}" in problem) == (True, True, True)


@pytest.mark.parametrize("text", ["seed: 1\nlr: [1\n", "seed: 1\nlr: 1: 2\n"])
def test_a_malformed_file_is_named_with_the_line(read, text, fails):
    problem = fails(UsageError, read, text).problem
    assert ("run.yaml" in problem, "line" in problem) == (True, True)


def test_a_file_in_another_encoding_is_named(read, fails):
    assert "run.yaml" in fails(UsageError, read, "system: é\n".encode("latin-1")).problem


def test_a_missing_file_is_named(tmp_path, fails):
    problem = fails(UsageError, read_run_file, tmp_path / "missing.yaml").problem
    assert ("missing.yaml" in problem, "No such file" in problem) == (True, True)


@pytest.mark.parametrize(
    ("value", "read_as"),
    [("2024-01-01", "2024-01-01"), ("1e3", "1e3"), ("&a [1]", [1]), ("{1: 2}", {1: 2}), ("1:30", 90), ("~", None)],
)
def test_values_are_what_json_has(read, value, read_as):
    assert read(f"a: {value}\n")[0] == {"a": read_as}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("!!int ''", "index out of range"),
        ("!!float x", "could not convert"),
        ("9" * 5000, "digits"),
    ],
    ids=["int", "float", "digits"],
)
def test_a_value_that_cannot_be_read_is_named_with_file_line_and_option(read, value, problem, fails):
    found = fails(UsageError, read, f"b: 1\na: {value}\n").problem
    assert ("run.yaml:2: a: " in found, problem in found) == (True, True)


@pytest.mark.parametrize(
    "value", ["!!binary aGk=", "!!set {a, b}", "!!timestamp 2024-01-01", "!!python/object:os.system x"]
)
def test_what_json_does_not_have_is_refused(read, value, fails):
    assert "could not determine a constructor" in fails(UsageError, read, f"a: {value}\n").problem


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 1500, "a: \x00", "a: *b", "a: &a [*a]", "a: &a {b: *a}", "? [a]\n: [*a]"]
)
def test_a_file_that_is_no_yaml_at_all_is_named(read, text, fails):
    assert "run.yaml" in fails(UsageError, read, text).problem


@pytest.mark.parametrize("name", ["\x00.yaml", "x" * 300 + ".yaml", "~nobody-of-this-name.yaml"])
def test_a_path_that_cannot_be_is_a_missing_file(name, fails):
    assert repr(name)[1:9] in repr(fails(UsageError, read_run_file, Path(name)).problem)
