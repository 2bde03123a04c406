import pytest

from llmtune.table import text_table


def test_columns_are_aligned_under_their_header():
    assert text_table(["NAME", "SIZE", "NOTE"], [["a", "7B", "x"], ["longer", "135M", ""]]).splitlines() == [
        "NAME    SIZE  NOTE",
        "a       7B    x",
        "longer  135M",
    ]


def test_wide_characters_take_two_columns():
    lines = text_table(["NAME", "X"], [["你好", "1"], ["abcd", "2"]]).splitlines()
    assert lines == ["NAME  X", "你好  1", "abcd  2"]


@pytest.mark.parametrize("text", ["x" * 200, "你" * 100])
def test_the_last_column_is_cut_at_the_terminals_edge(monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "40")
    line = text_table(["NAME", "NOTE"], [["name", text]]).splitlines()[1]
    assert line.endswith("...")
    assert sum(2 if character == "你" else 1 for character in line) <= 40


def test_the_other_columns_are_never_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert "x" * 60 in text_table(["NAME", "NOTE"], [["x" * 60, "note"]])


def test_a_table_without_rows_is_its_header():
    assert text_table(["NAME", "NOTE"], []) == "NAME  NOTE"


def test_cells_need_not_be_text():
    assert text_table(["N", "M"], [[1, None]]).splitlines()[1] == "1  None"
