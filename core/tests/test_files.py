import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data import files
from llmtune.data.files import read_records
from llmtune.data.opening import PROBLEM, SOURCE
from llmtune.errors import DataError

RECORDS = [{"query": "Hallo, du", "response": "你好\nund mehr"}, {"query": "2", "response": "zwei"}]
CSV = '{0}query,response\n"Hallo, du","你好\nund mehr"\n2,zwei\n'


def write_parquet(path):
    pq.write_table(pa.Table.from_pylist(RECORDS), path)


@pytest.fixture
def path_of(tmp_path):
    def write(name, content=""):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


JSONL = '{0}{{"query": "Hallo, du", "response": "你好\\nund mehr"}}\n\n{{"query": "2", "response": "zwei"}}'
JSON = '{0}[{{"query": "Hallo, du", "response": "你好\\nund mehr"}},\n {{"query": "2", "response": "zwei"}}]'


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("d.jsonl", JSONL, [":1", ":3"]),
        ("d.json", JSON, [": record 1", ": record 2"]),
        ("d.json", JSONL, [":1", ":3"]),
        ("d.csv", CSV, [":3", ":4"]),
    ],
    ids=["jsonl", "json", "jsonl named json", "csv"],
)
def test_every_format_gives_the_same_records_with_their_places(path_of, name, text, places, mark):
    path = path_of(name, text.format(mark))
    records = list(read_records(path))
    assert [record.pop(SOURCE) for record in records] == [f"{path}{place}" for place in places]
    assert records == RECORDS


def test_parquet_is_read_with_the_number_of_each_record(tmp_path):
    write_parquet(tmp_path / "d.parquet")
    records = list(read_records(tmp_path / "d.parquet"))
    assert [record.pop(SOURCE) for record in records] == [f"{tmp_path}/d.parquet: record {n}" for n in (1, 2)]
    assert records == RECORDS


def test_windows_line_ends_and_separators_inside_text_are_no_new_records(path_of):
    path = path_of("d.jsonl", '{"query": "a\u2028b"}\r\n{"query": "c"}\r\n')
    assert [record["query"] for record in read_records(path)] == ["a\u2028b", "c"]


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x85", "\x1c"], ids=ascii)
def test_only_a_line_end_ends_a_csv_row(path_of, separator):
    path = path_of("d.csv", f"query,response\na{separator}b,c\n")
    assert [(record["query"], record[SOURCE]) for record in read_records(path)] == [(f"a{separator}b", f"{path}:2")]


def test_a_csv_cell_may_be_as_long_as_a_book(path_of):
    text = "x" * 200_000
    assert [record["query"] for record in read_records(path_of("d.csv", f"query\n{text}\n"))] == [text]


@pytest.mark.parametrize(
    ("name", "text", "place", "expected"),
    [
        ("d.jsonl", '{"query": "a"}\n{"query": \n', "d.jsonl:2", "malformed JSON"),
        ("d.jsonl", b'{"query": "a"}\n{"query": "\xff"}\n', "d.jsonl:2", "is not UTF-8"),
        ("d.txt", b"a\n\xff\n", "d.txt:2", "is not UTF-8"),
        ("d.jsonl", '{"query": "a"}\n[1, 2]\n', "d.jsonl:2", "expected an object"),
        ("d.json", '[{"query": "a"}, 3]', "d.json: record 2", "expected an object"),
        ("d.csv", "query,response\na,b\nc,d,e\n", "d.csv:3", "2"),
    ],
)
def test_a_malformed_record_comes_with_its_place_and_the_reason(path_of, name, text, place, expected):
    first, broken = read_records(path_of(name, text))
    assert PROBLEM not in first
    assert (place in broken[SOURCE], expected in broken[PROBLEM]) == (True, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1,", "the list has no end"),
        ('[{"query": "a"', "malformed JSON"),
        ('[{"query": "a"} {"query": }]', "malformed JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("x" * 5000, "malformed JSON"),
    ],
)
def test_a_json_file_that_cannot_be_read_to_its_end_is_named(path_of, text, reason, fails):
    problem = fails(DataError, lambda: list(read_records(path_of("d.json", text)))).problem
    assert ("d.json" in problem, reason in problem, len(problem) < 400) == (True, True, True)


@pytest.mark.parametrize(
    "text", ['{"a": 1}{"a": 2}', '{"a": 1},\n{"a": 2}', '[{"a": 1}\n{"a": 2}]', '[{"a": 1},{"a": 2},]']
)
def test_objects_that_follow_each_other_without_commas_are_read(path_of, text):
    assert [record["a"] for record in read_records(path_of("d.json", text))] == [1, 2]


def test_a_json_list_is_read_piece_by_piece(path_of, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 7)
    records = [{"text": "x" * number, "n": number} for number in range(50)]
    assert [
        (record["n"], record["text"]) for record in read_records(path_of("d.json", json.dumps(records, indent=1)))
    ] == [(number, "x" * number) for number in range(50)]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_files_are_read(tmp_path, suffix):
    path = tmp_path / f"d.jsonl.{suffix}"
    codec = {"gz": "gzip", "zst": "zstd"}[suffix]
    with pa.output_stream(str(path), compression=codec) as stream:
        stream.write(JSONL.format("").encode())
    assert [record["query"] for record in read_records(path)] == ["Hallo, du", "2"]


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_both_forms_of_arrow_are_read(tmp_path, form):
    table = pa.Table.from_pylist(RECORDS)
    with form(str(tmp_path / "d.arrow"), table.schema) as writer:
        writer.write_table(table)
    records = list(read_records(tmp_path / "d.arrow"))
    assert [record.pop(SOURCE) for record in records] == [f"{tmp_path}/d.arrow: record {n}" for n in (1, 2)]
    assert records == RECORDS


def test_each_line_of_a_text_file_is_a_record(path_of):
    path = path_of("d.txt", "one\n\ntwo\r\n")
    assert list(read_records(path)) == [{"text": "one", SOURCE: f"{path}:1"}, {"text": "two", SOURCE: f"{path}:3"}]


def test_a_pattern_stands_for_all_files_that_match(path_of, tmp_path, fails):
    for name in ("b1.txt", "a.txt", "b0.txt"):
        path_of(name, name)
    assert [record["text"] for record in read_records(tmp_path / "b*.txt")] == ["b0.txt", "b1.txt"]
    assert "no file matches" in fails(DataError, lambda: list(read_records(tmp_path / "c*.txt"))).problem


def test_a_column_that_the_header_names_twice_is_refused(path_of, fails):
    assert (
        "'query' twice" in fails(DataError, lambda: list(read_records(path_of("d.csv", "query,query\na,b\n")))).problem
    )


def test_a_malformed_line_is_shown_cut_short(path_of):
    (record,) = read_records(path_of("d.jsonl", "{" + "x" * 5000))
    assert ("character 2" in record[PROBLEM], len(record[PROBLEM]) < 300) == (True, True)


def test_a_folder_is_read_in_sorted_order_with_everything_below(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/z.jsonl").write_text('{"query": "second"}')
    (tmp_path / "a.json").write_text('[{"query": "first"}]')
    (tmp_path / "README.md").write_text("no data")
    assert [record["query"] for record in read_records(tmp_path)] == ["first", "second"]


def test_a_folder_without_data_says_what_was_expected(tmp_path, fails):
    error = fails(DataError, lambda: list(read_records(tmp_path)))
    assert (str(tmp_path) in error.problem, ".jsonl" in error.fix) == (True, True)


def test_an_unknown_suffix_says_what_was_expected(path_of, fails):
    error = fails(DataError, lambda: list(read_records(path_of("d.xlsx"))))
    assert ("'.xlsx'" in error.problem, ".jsonl" in error.fix) == (True, True)


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet"])
def test_a_missing_file_is_named(tmp_path, name, fails):
    problem = fails(DataError, lambda: list(read_records(tmp_path / name))).problem
    assert (name in problem, "No such file" in problem) == (True, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", b'[{"query": "\xff"}]'),
        ("d.parquet", b"PAR1 but no"),
        ("d.arrow", b"no"),
        ("d.jsonl.gz", b"no"),
        ("d.jsonl.zst", b"no"),
    ],
)
def test_a_file_of_another_encoding_or_format_is_named(path_of, name, content, fails):
    assert name in fails(DataError, lambda: list(read_records(path_of(name, content)))).problem
