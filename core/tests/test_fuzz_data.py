"""Whatever stands in a dataset: records and rows that are valid, or one error that says why not. No hang.

The same 100,000 inputs each time. Others, ten times as many: `FUZZ_SEED=1 FUZZ_TIMES=10 pytest FILE`.
A failure names the number of its input; `inputs(target, 1, start=number)` gives that one alone.
"""

from __future__ import annotations

import datetime as dt
import decimal
import faulthandler
import gzip
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data.columns import ROLES as COLUMNS
from llmtune.data.encode import Encoder
from llmtune.data.files import read_records
from llmtune.data.load import usable_rows
from llmtune.data.opening import SOURCE
from llmtune.data.preprocess import Auto, Fill
from llmtune.data.report import DataReport
from llmtune.data.selector import Selector, parse_selector
from llmtune.data.spool import Spool, to_line
from llmtune.data.subsets import read_subsets, wanted_subsets
from llmtune.data.truncate import Limit
from llmtune.data.turns import ROLES, check_order
from llmtune.errors import DataError, UsageError
from llmtune.template.chat_format import ChatFormat
from llmtune.template.thinking import thoughts_apart
from llmtune.testing.tiny import tiny_tokenizer

SEED = os.environ.get("FUZZ_SEED", "0")
TIMES = float(os.environ.get("FUZZ_TIMES", "1"))
SECONDS = 20  # for one input; the slowest takes milliseconds


class Hang(BaseException):
    """Nothing that reads data catches it."""


@pytest.fixture(autouse=True)
def _no_hang():
    """Python's own code is interrupted (`inputs`); a hang inside of pyarrow ends the process and shows its stack."""

    def interrupt(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, interrupt)
    faulthandler.dump_traceback_later(30 * SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGALRM, before)


def inputs(target: str, count: int, start: int = 0) -> Iterator[tuple[Random, Callable[[], Any]]]:
    """Yield what draws each input, and a context in which it is tried."""
    for number in range(start, start + int(count * TIMES)):
        yield Random(f"{SEED}/{target}/{number}"), lambda number=number: trying(f"FUZZ_SEED={SEED} {target} {number}")


@contextmanager
def trying(name: str) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except (Exception, Hang) as error:
        raise AssertionError(f"{name}: {type(error).__name__}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def found(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Return what a call gives, or nothing and the problem that its error names; other errors are failures."""
    try:
        return call(*arguments), None
    except (DataError, UsageError) as error:
        return (), error.problem


# --- files ----------------------------------------------------------------------------------------

RECORDS = [
    {"query": f"Frage {number}", "response": "你好\n" * number, "messages": [{"role": "user", "content": "é"}]}
    for number in range(5)
]
LINES = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS).encode()
CSV = b'query,response\n"a, b","c\nd"\n1,2\n"x ""y""",\n'


def table() -> pa.Table:
    """Return the records with columns of the types that Python reads in a way of its own."""
    five, day = range(1, 6), dt.date(2020, 1, 1)
    odd = {
        "choice": pa.array(["a", "b", "a", None, "b"]).dictionary_encode(),
        "pairs": pa.array([[("a", 1)]] * 5, pa.map_(pa.string(), pa.int64())),
        "image": pa.array([{"bytes": b"\xff\xd8", "path": None}] * 5),
        "day": pa.array([day] * 5),
        "time": pa.array(five, pa.timestamp("us", "UTC")),
        "exact": pa.array(five, pa.timestamp("ns")),
        "took": pa.array(five, pa.duration("us")),
        "price": pa.array([decimal.Decimal(number) for number in five], pa.decimal128(25, 2)),
        "long": pa.array(["x"] * 5, pa.large_string()),
        "flag": pa.array([True, None, False, True, None]),
        "score": pa.array([0.5] * 5),
    }
    rows = pa.Table.from_pylist(RECORDS)
    for name, column in odd.items():
        rows = rows.append_column(name, column)
    return rows


def arrow(form: Callable[..., Any], **options: Any) -> bytes:
    stream, rows = io.BytesIO(), table()
    with form(stream, rows.schema, **options) as writer:
        writer.write_table(rows, max_chunksize=2)
    return stream.getvalue()


def parquet(**options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table(), stream, **options)
    return stream.getvalue()


VALID: dict[str, list[bytes]] = {
    "json": [json.dumps(RECORDS, ensure_ascii=False, indent=1).encode(), LINES, json.dumps(RECORDS[1]).encode()],
    "jsonl": [LINES],
    "csv": [CSV],
    "tsv": [CSV.replace(b",", b"\t")],
    "txt": ["one\n\ntwo\r\n你好".encode()],
    "parquet": [parquet(), parquet(compression="gzip"), parquet(use_dictionary=False, compression="none")],
    "arrow": [
        arrow(pa.ipc.new_stream),
        arrow(pa.ipc.new_file),
        arrow(pa.ipc.new_stream, options=pa.ipc.IpcWriteOptions(compression="lz4")),
    ],
}
SPLICES = [content for contents in VALID.values() for content in contents] + [b"\x00", b"\xef\xbb\xbf", b"\xff\xfe"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, 1),
    "zst": lambda content: bytes(pa.compress(content, codec="zstd", asbytes=True)),
}
# Small changes get past the checks at the start of a binary file, large ones do not.
SMALL = ("flip", "flip", "byte")
LARGE = ("cut", "drop", "insert", "splice", "repeat")


def mutated(random: Random, content: bytes, kinds: tuple[str, ...]) -> bytes:
    data = bytearray(content)
    for kind in random.choices(kinds, k=random.choice((1, 1, 2, 4))):
        place = random.randrange(len(data) + 1)
        at = place % max(len(data), 1)
        if kind == "flip" and data:
            data[at] ^= 1 << random.randrange(8)
        elif kind == "byte" and data:
            data[at] = random.choice((0, 1, 127, 128, 255))
        elif kind == "cut":
            del data[place:]
        elif kind == "drop":
            del data[place : place + random.randrange(1, 20)]
        elif kind == "insert":
            data[place:place] = random.randbytes(random.randrange(1, 10))
        elif kind == "splice":
            other = random.choice(SPLICES)
            start = random.randrange(len(other))
            data[place : place + random.randrange(40)] = other[start : start + random.randrange(200)]
        elif kind == "repeat":
            data[place:place] = data[at : at + random.randrange(200)]
    return bytes(data)


def content_of(random: Random, kind: str, compression: str) -> bytes:
    """Return a damaged file: damaged before it was compressed, or after, or nothing but random bytes."""
    compress = COMPRESS.get(compression, bytes)
    damage = random.choice((SMALL, SMALL, LARGE))
    how = random.random()
    if how < 0.1:
        return random.randbytes(random.randrange(200))
    if how < 0.55:
        return compress(mutated(random, random.choice(VALID[kind]), damage))
    return mutated(random, compress(random.choice(VALID[kind])), damage)


COUNTS = {"json": 10_000, "jsonl": 12_000, "csv": 12_000, "tsv": 10_000, "txt": 12_000, "parquet": 4000, "arrow": 4000}


@pytest.mark.parametrize("compression", ["", *COMPRESS])
@pytest.mark.parametrize("kind", VALID)
def test_a_damaged_file_gives_records_or_an_error_that_names_it(kind, compression, tmp_path):
    path = tmp_path / f"d.{kind}{compression and '.'}{compression}"
    for random, trying in inputs(path.name, COUNTS[kind] // (6 if compression else 1)):
        path.write_bytes(content_of(random, kind, compression))
        with trying():
            records, problem = found(lambda: list(read_records(path)))
            assert all(record[SOURCE].startswith(str(path)) for record in records)
            assert problem is None or str(path) in problem


@pytest.mark.parametrize("more", ['[{"a": 2}]', '\n{"a": 2}', " " * 9 + "x", "]"])
def test_what_follows_a_json_list_is_not_lost_in_silence(more, tmp_path):
    (tmp_path / "d.json").write_text('[{"a": 1}]' + more)
    _, problem = found(lambda: list(read_records(tmp_path / "d.json")))
    assert "something follows the list" in str(problem)


# --- records --------------------------------------------------------------------------------------

TURNS = [{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Ho"}]
TEXTS = [
    *("", " ", "Hi", "你好", "\ud800", "\x00", "a\nb", "\u202e", "\x1b[31m", "x" * 70_000, "\ufffd", "{query}", "{"),
    *("<image>", "<image><image>", "<img>a.png</img>", "<img> </img>", "<image>a</video>", "<video>v</video>"),
    *("<audio>", "<img>" * 500, "<img>" + " " * 500, "<|im_start|>user\n", "<think>", "</think>"),
    *(
        "[]",
        "[[]]",
        "{}",
        "[null]",
        "null",
        "None",
        "true",
        "True",
        "1",
        "1.0",
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
    ),
    *('["a", "b"]', "['a']", "{'a'", "b'x'", "1+1j", "{1, 2}", "{(1, 2): 3}", "__import__('os').abort()", "f(1)"),
    *(json.dumps(TURNS), repr(TURNS), json.dumps(TURNS[0]), "[['q', 'a']]", '{"name": "f", "arguments": {"x": 1}}'),
    *('{"name": "f", "arguments": "{\\"x\\": NaN}"}', "{'name': 'f', 'parameters': {1: 2}}", '[{"name": 1}]'),
    *("[" * 200, "[" * 3000, "(" * 300, "{'a':" * 200, "-" * 5000, "1 +" * 1000 + "1", "not " * 1000 + "x"),
]
ODD = [
    *(None, True, False, 0, 1, -1, 10**30, 1.5, float("nan"), float("inf"), b"", b"\xff", b"\x89PNG", (), {1, 2}),
    *(dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.timedelta(1)),
    *(decimal.Decimal("1.5"), decimal.Decimal("NaN")),
]
NAMES = [name for names in COLUMNS.values() for name in names] + ["id", "Query", "a", "\ud800", "\n", "x" * 300, ""]
ROLE_NAMES = [*ROLES, " User ", "GPT", "robot", "", None, 1, ["user"], {"a": 1}, "\ud800"]
LAYOUTS = (
    *(("query", "response"), ("instruction", "input", "output"), ("query", "response", "history"), ("text",)),
    *(("messages",), ("conversations", "system", "tools"), ("messages", "images"), ("prompt", "completion", "label")),
    *(("prompt", "chosen", "rejected"), ("chosen", "rejected"), ("messages", "rejected_response"), ("text", "image")),
    *(("prompt", "chosen", "rejected", "images"), ("query", "response", "images", "videos", "audios")),
)
FILLS = (
    Fill("{a}"),
    Fill("{response}", "{query}\n{text}", "S {system}"),
    Fill("{label}", "{text} {", choices={"label": ["neg", "pos"]}),
)


class Odd:
    """Draws values that a dataset could hold, most of them nearly right."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def some(self, draw: Callable[[], Any], most: int = 3) -> list[Any]:
        return [draw() for _ in range(self.random.randrange(most + 1))]

    def text(self) -> str:
        random = self.random
        if self.often(0.7):
            return random.choice(TEXTS)
        limits = random.choices((128, 0x3000, 0x110000), k=random.randrange(8))
        return "".join(chr(random.randrange(limit)) for limit in limits)

    def leaf(self) -> Any:
        return self.text() if self.often(0.6) else self.random.choice(ODD)

    def deep(self) -> Any:
        value, wrap = self.leaf(), self.random.choice((lambda inner: [inner], lambda inner: {"a": inner}))
        for _ in range(self.random.choice((5, 50, 900, 3000))):
            value = wrap(value)
        return value

    def value(self, depth: int = 2) -> Any:
        draw = self.random.choice((*[self.leaf] * 4, self.written, self.deep) if depth else (self.leaf,))
        kind = self.random.randrange(8) if depth else 0
        if kind == 4:
            return self.some(lambda: self.value(depth - 1))
        if kind == 5:
            return {self.key(): self.value(depth - 1) for _ in range(self.random.randrange(3))}
        if kind == 6:
            return self.turns(depth - 1)
        return self.call(depth - 1) if kind == 7 else draw()

    def key(self) -> Any:
        return self.random.choice(NAMES) if self.often(0.95) else self.random.choice((1, None, (1,)))

    def written(self) -> str:
        """Return turns as JSON or as Python writes them, now and then cut."""
        value = self.turns(1)
        text = json.dumps(value, default=str, skipkeys=True) if self.often(0.5) else repr(value)
        return text if self.often(0.5) else text[: self.random.randrange(200)]

    def turns(self, depth: int = 2) -> list[Any]:
        roles = ["system"] * self.often(0.2) + ["user", "assistant"] * self.random.randrange(3)
        return [self.turn(role, depth) for role in roles[: self.random.choice((1, 2, 3, 9))]]

    def turn(self, role: Any, depth: int) -> Any:
        if self.often(0.03):
            return self.leaf()
        if self.often(0.1):
            names = self.random.choices(("human", "assistant", "system", "gpt", "Human"), k=2)
            return {name: self.content(depth) for name in names}
        role = role if self.often(0.9) else self.random.choice(ROLE_NAMES)
        role_key, key = self.random.choice((("role", "content"), ("from", "value"), ("role", "value")))
        turn = {role_key: role, key: self.content(depth)}
        if self.often(0.1):
            turn["tool_calls"] = self.random.choice((self.some(lambda: self.call(0)), self.leaf()))
        if self.often(0.1):
            turn["loss"] = self.leaf()
        return turn

    def content(self, depth: int) -> Any:
        if self.often(0.8):
            return self.text()
        return self.some(self.part) if self.often(0.5) or not depth else self.value(depth - 1)

    def part(self) -> Any:
        kind = self.random.choice(("text", "image", "image_url", "video", "input_audio", self.leaf()))
        key = self.random.choice(("text", "url", "path", "image", "image_url"))
        return {"type": kind, key: self.random.choice((self.leaf(), {"url": self.leaf()}))}

    def call(self, depth: int) -> Any:
        function = {"name": self.text(), self.random.choice(("arguments", "parameters")): self.value(max(depth, 0))}
        return self.random.choice((function, {"id": self.leaf(), "function": function}, {"function": self.leaf()}))

    def cell(self, column: str) -> Any:
        if self.often(0.1):
            return self.value()
        if column in ("messages", "conversations", "chosen", "rejected"):
            return self.turns()
        if column == "history":
            return self.some(lambda: [self.text(), self.text()])
        if column == "tools":
            return self.some(lambda: self.call(2))
        if column in ("images", "videos", "audios", "image"):
            return self.random.choice(("a.png", ["a.png"], ["a.png", "b.png"], [{"bytes": b"x", "path": None}], None))
        return self.text()

    def record(self) -> dict[str, Any]:
        if self.often(0.6):
            return {column: self.cell(column) for column in self.random.choice(LAYOUTS)}
        return {name: self.value() for name in self.random.choices(NAMES, k=self.random.randrange(5))}


def check_rows(preprocess: Any, record: dict[str, Any], report: DataReport, spool: Spool) -> list[Any]:
    """Preprocess a record; check the row that it became, or that it was counted with a reason."""
    rows = list(usable_rows(preprocess, [record], report))
    assert len(rows) + sum(report.dropped.values()) == report.read == 1
    for row in rows:
        check_row(row)
        spool.append(row)
        back = spool[len(spool) - 1]
        assert (to_line(back), back["source"]) == (to_line(row), "record 1")
    for reason, places in report.examples.items():
        assert reason.strip()
        assert not re.match(r"\w+(Error|Exception)\b|max\(\)", reason), reason
        assert len(places[0]) < 700
    json.dumps(report.as_json(), ensure_ascii=False).encode()  # what the run folder gets
    "\n".join(report.lines()).encode()  # what the terminal gets
    return rows


def check_row(row: Any) -> None:
    messages = row["messages"]
    check_order(messages)
    check_order(row.get("rejected", messages))
    for message in [*messages, *row.get("rejected", ())]:
        assert isinstance(message["content"], str)
        assert isinstance(message.get("loss", True), bool)
        calls = message.get("tool_calls", [])
        assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    assert isinstance(row.get("system", ""), str)
    assert isinstance(row.get("label", True), bool)
    for kind, mark in (("images", "<image>"), ("videos", "<video>"), ("audios", "<audio>")):
        media = row.get(kind, ())
        assert all(isinstance(address, str) and address.strip() for address in media)
        assert not media or sum(message["content"].count(mark) for message in messages) == len(media)


@pytest.mark.parametrize("preprocessor", ["auto", "fill"])
def test_a_record_becomes_a_valid_row_or_is_counted_with_a_reason(preprocessor):
    spool, kept = Spool(), 0
    for random, trying in inputs(preprocessor, {"auto": 12_000, "fill": 4000}[preprocessor]):
        odd, strategy = Odd(random), random.choice(("none", "warning", "discard"))
        record = odd.record()
        columns = random.choice(({}, {}, {"a": "query"}, {"id": "response", "text": "-"}))
        if preprocessor == "fill":
            record |= {name: odd.leaf() for name in ("a", "query", "response", "text", "system", "label")}
        with trying():
            preprocess = Auto(columns) if preprocessor == "auto" else random.choice(FILLS)
            kept += len(check_rows(preprocess, record, DataReport(strategy=strategy), spool))
    assert kept > 500 * TIMES


SHORT = st.sampled_from([text for text in TEXTS if len(text) < 300])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | SHORT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "role", "content"]), inner),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(ROLE_NAMES), "content": st.text() | JSON_VALUES}), max_size=4
)


@settings(max_examples=int(500 * TIMES), deadline=None, derandomize=SEED == "0", database=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON_VALUES | MESSAGES | st.text(), max_size=4))
def test_any_json_becomes_a_valid_row_or_is_counted_with_a_reason(record):
    check_rows(Auto(), record, DataReport(), Spool())


# --- selectors ------------------------------------------------------------------------------------

SELECTOR_PARTS = [
    *(
        "::",
        ":",
        "#",
        "/",
        "*",
        "?",
        "[",
        "]",
        "[!",
        "[z-a]",
        "**",
        "~",
        "~x",
        ".",
        "..",
        "-",
        "\x00",
        "\udcff",
        "\ud800",
    ),
    *(
        "HF",
        "owner/name",
        "alpaca-zh",
        "d.jsonl",
        "a",
        "5",
        "-1",
        "٣",
        "²",
        "9" * 5000,
        "x" * 300,
        " ",
        "\n",
        "你好",
        "",
    ),
]


def test_a_selector_is_understood_or_refused(tmp_path, monkeypatch):
    (tmp_path / "d.jsonl").write_text("{}")
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for random, trying in inputs("selector", 2000):
        text = "".join(random.choices(SELECTOR_PARTS, k=random.randrange(8))).lstrip("/")
        with trying():
            selector, problem = found(parse_selector, text)
            assert isinstance(selector, Selector) if problem is None else repr(text) in problem
            assert problem or selector.sample is None or selector.sample >= 0
            assert problem or selector.path is None or selector.hub is None


# --- repositories ---------------------------------------------------------------------------------

FILES = ("train.jsonl", "test-00.jsonl", "os/dev.jsonl", "os/train.jsonl", "db.csv", ".git/x.json", "owner.json")
PATTERNS = [
    *(
        "train.jsonl",
        "*",
        "**",
        "**/*.jsonl",
        "**x",
        "[",
        "[z-a]",
        "os/*",
        "../*",
        "/etc/*",
        "~",
        "",
        ".",
        "\x00",
        "\n",
    ),
    *("x" * 300, "*" * 50, "**/" * 9 + "*", "os//train.jsonl", "./train.jsonl", "\ud800", "owner.json", "C:\\x"),
]
SPLITS = ["train", "validation", "test", "", "\x00", None, 1, "a/b"]
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
WHOLE_PAGES = [
    *("", "[", "- a", "configs", "configs: 2020-99-99", "configs: " + "[" * 400, "? [a]\n: 1", "configs: &a [*a]"),
    *("a: !!int ''", "a: !!float x", "a: !!bool x", "a: !!timestamp x", "a: *b", "\ta: b", "%YAML 9", "9" * 5000),
    BOMB + "configs: [{config_name: *a40, data_dir: *a40, data_files: *a40}]",
    BOMB + "configs: [{data_files: [{split: *a40, path: *a40}, {split: train, path: [*a40]}]}]",
]


def page(random: Random) -> str:
    """Return the front matter of a repository's page, most of it nearly right."""

    def value(*usual: Any) -> Any:
        return (
            random.choice(usual) if random.random() < 0.85 else random.choice((*ODD[:10], [1], {"a": [None]}, ODD[15]))
        )

    def paths() -> Any:
        return value(random.choice(PATTERNS), random.choices(PATTERNS, k=2), [value("a"), None])

    def entry() -> dict[str, Any]:
        files = value(
            paths(),
            [{"split": value(*SPLITS), "path": paths()} for _ in range(2)],
            {random.choice(SPLITS): paths()},
        )
        return {"config_name": value("os", "db", "default"), "data_dir": value(None, ".", "os"), "data_files": files}

    configs = value([value(entry()) for _ in range(random.randrange(3))])
    text: str = yaml.dump({"configs": configs, "dataset_info": value(1)}, allow_unicode=True)
    place = random.randrange(len(text))
    cut = text[:place] + random.choice(WHOLE_PAGES) + text[place + random.randrange(9) :]
    return random.choice((text, text, text, cut, random.choice(WHOLE_PAGES)))


def check_folder(folder: Path, random: Random) -> None:
    names = random.choice(((), (), ("all",), ("os",), ("os", "db"), ("x" * 300,), ("\x00", "[")))

    def read() -> list[Any]:
        train, validation = wanted_subsets(folder, {}, names)
        records = read_records(folder) if train is None else read_subsets(folder, train)
        return [*records, *read_subsets(folder, validation)]

    records, problem = found(read)
    assert all(record[SOURCE].startswith(str(folder)) for record in records)
    assert problem is None or str(folder) in problem


def test_a_page_of_a_repository_names_files_or_an_error_says_so(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"query": "q"}\n')
    for random, trying in inputs("page", 500):
        content = f"---\n{page(random)}\n---\n".encode(errors="surrogatepass")
        (tmp_path / "README.md").write_bytes(mutated(random, content, LARGE) if random.random() < 0.1 else content)
        index = {"os": {"train": {"meta": random.choice(PATTERNS)}}, "db": {random.choice(NAMES): {"meta": "d"}}}
        (tmp_path / "owner.json").write_text(json.dumps(index)[: random.choice((9, 999, 999))])
        with trying():
            check_folder(tmp_path, random)


def test_a_folder_of_any_files_is_read_or_an_error_says_so(tmp_path):
    words = ["train", "test", "dev", "os", "default", "a b", "(", "[x]", "你", ".git", "README.md", "\udcff", "~", "*"]
    endings = [".jsonl", ".csv", ".json", ".txt.gz", ".parquet", ".md", ""]
    for number, (random, trying) in enumerate(inputs("folder", 500)):
        folder = tmp_path / str(number)
        for _ in range(random.randrange(5)):
            path = folder.joinpath(*random.choices(words, k=random.randrange(1, 4)))
            path = path.with_name(path.name + random.choice(endings))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(random.choice((b"", b'{"query": "q"}\n', b"a,b\n1,2\n")))
            except OSError:  # a file stands where this one needs a folder
                continue
        folder.mkdir(exist_ok=True)
        with trying():
            check_folder(folder, random)


# --- encoding -------------------------------------------------------------------------------------

ADDED = ("<think>", "</think>", "<tool_call>")
PIECES = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        *ADDED,
        "<think",
        "think>",
        "<",
        "|>",
        "<|",
        "im_end|>",
        "<<think>>",
    ),
    *("{{QUERY}}", "{{SYSTEM}}", "user\n", "assistant", " ", "\n", "\x00", "你好", "é", "e\u0301", "😀", "a", "\u2028"),
]


@pytest.fixture
def encoder(chatml):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(ADDED))  # not marked as special, as in some vocabularies
    template = ChatFormat(chatml(), tokenizer)
    return lambda **limit: Encoder(template=template, limit=Limit(**limit))


def any_row(random: Random) -> Any:
    """Return a row as preprocessors make them: turns of texts, some of them with other content."""

    def text() -> str:
        return "".join(random.choices(PIECES, k=random.randrange(1, 9)))

    roles = ["assistant"] if random.random() < 0.1 else ["user", "assistant"] * random.randrange(1, 4)
    roles = roles[:-1] if len(roles) > 1 and random.random() < 0.1 else roles
    messages: list[Any] = [{"role": role, "content": text()} for role in roles]
    if len(roles) > 1 and random.random() < 0.2:
        random.choice(messages)["loss"] = random.random() < 0.5
    more = random.choice(({}, {}, {}, {"images": ["a"]}, {"label": False}, {"tools": [{}]}, {"system": text()}))
    return {"messages": messages, "source": "s", **more}


def test_no_text_becomes_a_control_token_and_the_answers_are_what_is_trained_on(encoder):
    encoder = encoder()
    tokenizer = encoder.template.tokenizer
    control = set(tokenizer.get_added_vocab().values())
    for random, trying in inputs("encode", 3000):
        row = any_row(random)
        try:
            turns = thoughts_apart(row)["messages"]
        except DataError:
            assert "thoughts" in encoder.outcome(row).problem
            continue
        pairs = zip(row["messages"], turns, strict=True)
        plain = {**row, "messages": [message | {"content": _plain(turn)} for message, turn in pairs]}
        plain |= {"system": "x"} if "system" in row else {}
        with trying():
            outcome, expected = encoder.outcomes([row, plain])
            assert outcome.problem == expected.problem
            for sample, same in zip(outcome.samples, expected.samples, strict=True):
                found = [token for token in sample["input_ids"] if token in control]
                assert found == [token for token in same["input_ids"] if token in control]
                trained = [token for token in sample["labels"] if token != -100 and token not in control]
                answers = [one for one in turns if one["role"] == "assistant" and one.get("loss", True)]
                assert tokenizer.decode(trained) == "".join(_written(one) for one in answers)


def _plain(turn: Any) -> str:
    return "<think>x</think>x" if "reasoning_content" in turn else "x"


def _written(answer: Any) -> str:
    """Return an answer as ChatML writes it, without control tokens."""
    thoughts = answer.get("reasoning_content")
    return answer["content"] if thoughts is None else f"\n{thoughts}\n\n\n{answer['content']}"


def test_rows_that_are_cut_keep_to_the_limit_and_have_a_target(encoder):
    strategies = ("delete", "truncation_left", "truncation_right", "split")
    for random, trying in inputs("truncate", 1000):
        limit = Limit(max_length=random.randrange(1, 90), truncation=random.choice(strategies))
        rows = [any_row(random) for _ in range(3)]
        with trying():
            for outcome in encoder(**vars(limit)).outcomes(rows):
                assert bool(outcome.problem) != bool(outcome.samples)
                for sample in outcome.samples:
                    pairs = list(zip(sample["input_ids"], sample["labels"], strict=True))
                    assert all(label in (-100, token) for token, label in pairs)
                    assert 0 < len(pairs) <= limit.max_length
                    assert any(label != -100 for _, label in pairs)


def test_what_records_become_can_be_encoded(encoder):
    encoder = encoder(max_length=500, truncation="truncation_right")
    for random, trying in inputs("through", 2000):
        record = Odd(random).record()
        with trying():
            rows = list(usable_rows(Auto(), [record], DataReport()))
            assert all(bool(one.problem) != bool(one.samples) for one in encoder.outcomes(rows))
