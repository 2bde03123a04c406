"""Random rows through every kind of file: the same conversation, whatever holds it."""

import csv
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data.encode import Encoder
from llmtune.data.files import read_records
from llmtune.data.preprocess import Auto
from llmtune.data.spool import to_line
from llmtune.data.truncate import Limit
from llmtune.testing import create_template
from llmtune.testing.tiny import tiny_tokenizer

ROWS = 2000
WORDS = ("sun", "a, b", 'say "x"', "two\nlines", "数", "of <think>", "null", "{}", " ")


class Everything(random.Random):
    """Makes a row with every key, in whose order Arrow then gives those of all rows."""

    def random(self):
        return 0.0


def texts(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 4))) + "."


def arguments(rng, *, loose):
    """Keys in one order, because Arrow keeps none; `loose` ones (nulls, mixed types) are JSON text."""
    made = {"x": rng.randint(0, 9), "y": texts(rng), "z": [texts(rng) for _ in range(rng.randint(1, 2))]}
    made = {key: value for key, value in made.items() if rng.random() < 0.6}
    if not loose:
        return made
    more = {"n": None, "m": rng.choice([1, "one", 1.5, True, [None], {"k": None}])}
    return json.dumps({**made, **{key: value for key, value in more.items() if rng.random() < 0.6}})


def tool(rng, name):
    described = {"name": name, "description": texts(rng) if rng.random() < 0.5 else None}
    properties = {key: {"type": kind} for key, kind in (("x", "integer"), ("y", "string")) if rng.random() < 0.7}
    described["parameters"] = {"type": "object", "properties": properties or {"x": {"type": "integer"}}}
    return {key: value for key, value in described.items() if value is not None}


def calls_and_results(rng, names, *, loose):
    made = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": rng.choice(names), "arguments": arguments(rng, loose=loose)},
        }
        for number in range(rng.randint(1, 3))
    ]
    calling = {"role": "assistant", "content": rng.choice([None, texts(rng)]), "tool_calls": made}
    results = [{"role": "tool", "content": texts(rng), "tool_call_id": call["id"]} for call in made]
    rng.shuffle(results)
    return [calling, *results]


def answer(rng):
    turn = {"role": "assistant", "content": texts(rng)}
    way = rng.random()
    if way < 0.2:
        turn["reasoning_content"] = texts(rng)
    elif way < 0.4:
        turn["content"] = f"<think>\n{texts(rng)}\n</think>\n\n{turn['content']}"
    if rng.random() < 0.2:
        turn["loss"] = rng.random() < 0.5
    return turn


def row(rng, kind):
    names = ["f", "g"][: rng.randint(1, 2)]
    turns = [{"role": "system", "content": texts(rng)}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 3)):
        turns.append({"role": "user", "content": texts(rng)})
        if rng.random() < 0.5:
            turns += calls_and_results(rng, names, loose=kind == "loose")
        turns.append(answer(rng))
    if kind == "parts":
        for turn in turns:
            if turn["content"] is not None:
                cut = rng.randint(0, len(turn["content"]))
                parts = (turn["content"][:cut], turn["content"][cut:])
                turn["content"] = [{"type": "text", "text": part} for part in parts if part]
    tools = [tool(rng, name) for name in names]
    if kind == "loose":
        tools[0]["parameters"]["default"] = None
        return {"messages": turns, "tools": json.dumps(tools)}
    return {"messages": turns, "tools": tools}


def written(folder, rows):
    """Write rows in every form; return the files."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", row_group_size=100)
    with pa.ipc.new_stream(folder / "stream.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=100)
    with pa.ipc.new_file(folder / "file.arrow", table.schema) as file:
        file.write_table(table)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["messages", "tools"])
        writer.writerows([json.dumps(one["messages"]), _text(one["tools"])] for one in rows)
    return sorted(folder.iterdir())


def _text(cell):
    return cell if isinstance(cell, str) else json.dumps(cell)


def outcome(preprocess, record):
    try:
        return to_line(preprocess(record))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["strict", "loose", "parts"])
def test_random_rows_are_the_same_in_every_kind_of_file(tmp_path, kind):
    rng = random.Random(kind)
    rows = [row(Everything(kind), kind), *(row(rng, kind) for _ in range(ROWS // 3))]
    read = {}
    for file in written(tmp_path, rows):
        preprocess = Auto()
        read[file.name] = [outcome(preprocess, record) for record in read_records(file)]
        assert not preprocess.unused, file.name
    expected = read["rows.jsonl"]
    assert len(expected) == len(rows)
    for name, found in read.items():
        different = [number for number, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
        assert not different, (name, rows[different[0]], found[different[0]])
    usable = [json.loads(line) for line in expected if isinstance(line, bytes)]
    assert len(usable) > 0.9 * len(rows)
    _, template = create_template("qwen3", tiny_tokenizer())
    outcomes = Encoder(template=template, limit=Limit(max_length=-1)).outcomes(usable)
    assert sum(bool(one.samples) for one in outcomes) > 0.8 * len(rows), {one.problem for one in outcomes}
