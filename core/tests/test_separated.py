import csv
import io
import random

import pytest

from llmtune.data.files import read_records
from llmtune.data.opening import PROBLEM, SOURCE
from llmtune.errors import DataError

MANY = "".join(f"q{number},a{number}\n" for number in range(3, 100))


@pytest.fixture
def path_of(tmp_path):
    def write(text, name="d.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def cells(path):
    return [{key: value for key, value in one.items() if key != SOURCE} for one in read_records(path)]


@pytest.mark.parametrize(
    ("stray", "what"),
    [
        ('q1,"To be\n' + MANY, "never closed"),
        ('q1,"To be\n' + MANY + 'q,"quoted"\n' + MANY, "text follows"),
        ('q1,"To be\nq2,a2\nq3,a3\nq4,a4\nq5,5"\n' + MANY, "which are records too"),
        ('q1,"a "b" c"\n', "text follows"),
        ('"q1,a1\n', "never closed"),
    ],
)
def test_a_quote_that_is_not_closed_is_an_error_with_its_line(path_of, fails, stray, what):
    path = path_of("query,response\nq0,a0\n" + stray)
    error = fails(DataError, list, read_records(path))
    assert f"{path}:3: malformed record" in error.problem
    assert what in error.problem


def test_a_quote_inside_of_a_cell_is_text(path_of):
    assert cells(path_of('query,response\n5" pipe,say "hi"\n')) == [{"query": '5" pipe', "response": 'say "hi"'}]


@pytest.mark.parametrize("line", ["q1", "q1,a1,more"])
def test_a_record_of_another_length_is_left_out_with_its_line(path_of, line):
    path = path_of(f"query,response\nq0,a0\n{line}\nq2,a2\n")
    records = list(read_records(path))
    assert [(PROBLEM in one, one[SOURCE]) for one in records] == [
        (False, f"{path}:2"),
        (True, f"{path}:3"),
        (False, f"{path}:4"),
    ]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_than_the_comma_is_named(path_of, fails, separator):
    error = fails(DataError, list, read_records(path_of(f"query{separator}response\nq{separator}a, b\n")))
    assert "the header is one cell" in error.problem
    assert "are cells separated by" in error.problem


def test_what_a_csv_writer_writes_is_read_back(path_of):
    chance = random.Random(0)
    for _ in range(200):
        rows = [
            ["".join(chance.choices('ab ,"\n;\t', k=chance.randrange(1, 9))) for _ in range(3)]
            for _ in range(chance.randrange(1, 6))
        ]
        text, end = io.StringIO(), chance.choice(["\n", "\r\n"])
        quoting = chance.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
        csv.writer(text, quoting=quoting, lineterminator=end).writerows([["x", "y", "z"], *rows])
        assert [list(one.values()) for one in cells(path_of(text.getvalue()))] == rows


def test_in_tsv_a_quote_is_text_and_a_line_is_a_record(path_of):
    lines = ['q1\t"To be" is a verb', 'q2\t"Ten inch pipe', "q3\ta3", '"\t"quoted"']
    path = path_of("query\tresponse\n" + "\r\n".join(lines) + "\n", "d.tsv")
    assert cells(path) == [dict(zip(("query", "response"), line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize("text", ['q\t"two\nlines"\n', 'q\t"he said ""no"""\n'])
def test_a_tsv_that_is_quoted_like_csv_is_refused(path_of, fails, text):
    error = fails(DataError, list, read_records(path_of("query\tresponse\n" + text, "d.tsv")))
    assert "in TSV a quote is text" in error.problem
    assert "as CSV" in error.fix
