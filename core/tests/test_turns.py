import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data.files import read_records
from llmtune.data.preprocess import Auto, auto
from llmtune.data.turns import to_messages
from llmtune.errors import DataError
from llmtune.template.jinja import jinja_ids
from llmtune.template.tool_results import answered_calls
from llmtune.testing import create_template
from llmtune.testing.tiny import tiny_tokenizer

CALL = '{"name": "f", "arguments": {"x": 1}}'


def call(name="f", number=1, **more):
    return {**more, "type": "function", "function": {"name": name, "arguments": {"x": number}}}


def messages(*turns):
    return to_messages(list(turns), "messages")


ASK, RESULT, DONE = (
    {"role": "user", "content": "a"},
    {"role": "tool", "content": "r"},
    {"role": "assistant", "content": "d"},
)


def test_calls_in_turns_of_their_own_are_one_answer():
    two = {"role": "tool_call", "content": CALL.replace("1", "2")}
    row = auto({"messages": [ASK, {"role": "tool_call", "content": CALL}, two, RESULT, RESULT, DONE]})
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [call(), call(number=2)]}
    assert len(row["messages"]) == 5


@pytest.mark.parametrize("role", ["tool_call", "function_call"])
def test_a_call_after_the_text_of_an_answer_belongs_to_it(role):
    said = {"role": "assistant", "content": "I look."}
    row = auto({"messages": [ASK, said, {"role": role, "content": CALL}, RESULT, DONE]})
    assert row["messages"][1] == {**said, "tool_calls": [call()]}


def test_parts_of_one_answer_must_agree_on_what_is_trained():
    said = {"role": "assistant", "content": "I look.", "loss": False}
    with pytest.raises(ValueError, match="'loss' says yes and no"):
        messages(ASK, said, {"role": "tool_call", "content": CALL})
    assert messages(ASK, said, {"role": "tool_call", "content": CALL, "weight": 0})[1]["loss"] is False


@pytest.mark.parametrize("off", [{"loss": False}, {"weight": 0}, {"train": False}, {"loss": 0}])
@pytest.mark.parametrize(
    "turn", [{"role": "tool_call", "content": CALL}, {"role": "assistant", "content": "", "tool_calls": [call()]}]
)
def test_a_turn_of_calls_that_is_not_to_be_trained_is_not(turn, off):
    assert messages(ASK, {**turn, **off})[1]["loss"] is False


def test_thoughts_before_a_call_are_kept():
    (_, turn) = messages(ASK, {"role": "tool_call", "content": CALL, "reasoning_content": "hm"})
    assert turn == {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call()]}


def test_the_older_function_call_is_a_call():
    older = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    assert messages(ASK, older)[1]["tool_calls"] == [call()]
    assert messages(ASK, {**older, "content": "I look."})[1]["content"] == "I look."


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ({**DONE, "loss": True, "weight": 0}, "says both: loss True, weight 0"),
        ({**DONE, "train": "no"}, "'train' must be true or false"),
        ({**DONE, "reasoning": "a", "thinking": "b"}, "leave one out"),
        ({**DONE, "thinking": ["a"]}, "thoughts of a turn must be text"),
        ({**ASK, "reasoning_content": "a"}, "a turn of role 'user' has thoughts"),
        ({**ASK, "tool_calls": [call()]}, "a turn of role 'user' has calls"),
        ({**DONE, "value": "another"}, "leave one out"),
        (
            {"role": "tool_call", "content": "text", "tool_calls": [call()]},
            "has calls in 'content' and in 'tool_calls'",
        ),
    ],
)
def test_what_contradicts_itself_or_stands_in_the_wrong_turn_is_refused(turn, why):
    with pytest.raises(ValueError, match=why):
        messages(turn)


def test_keys_of_turns_that_nobody_reads_are_remembered():
    preprocess = Auto()
    named = {**RESULT, "name": "f", "tool_call_id": "c", "score": 1}
    preprocess({"messages": [{**ASK, "name": "Ann"}, {**DONE, "tool_calls": [call(id="c")], "id": None}, named, DONE]})
    assert preprocess.unused == {"messages[].name", "messages[].score"}


RESULTS = [{**RESULT, "tool_call_id": "c2"}, {**RESULT, "tool_call_id": "c1"}]


@pytest.mark.parametrize(
    ("results", "calls", "expected"),
    [
        (RESULTS, [call(id="c1"), call("g", id="c2")], [1, 0]),
        ([{**RESULT, "name": "g"}, {**RESULT, "name": "f"}], [call(), call("g")], [1, 0]),
        ([{**RESULT, "name": "g"}, RESULT, {**RESULT, "name": "g"}], [call("g"), call("g"), call()], [0, 2, 1]),
        ([RESULT, {**RESULT, "name": "f"}], [call(), call("g")], [1, 0]),
        ([RESULT, RESULT, RESULT], [call(), call("g")], [0, 1, None]),
        (RESULTS, [call(), call("g")], [0, 1]),
        ([RESULT], [], [None]),
    ],
)
def test_a_result_belongs_to_the_call_that_it_names(results, calls, expected):
    assert answered_calls(results, calls) == expected


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ([{**RESULT, "tool_call_id": "c9"}], "'c9', which the answer before does not call"),
        ([{**RESULT, "name": "h"}], "'h', which the answer before does not call"),
        ([{**RESULT, "name": "f"}] * 2, "'f', more often than it was called"),
        ([{**RESULT, "tool_call_id": "c1"}] * 2, "'c1', more often"),
    ],
)
def test_a_result_of_no_call_is_refused(result, why):
    with pytest.raises(DataError, match=why):
        answered_calls(result, [call(id="c1")])


def test_a_null_that_arrow_puts_into_a_struct_is_no_value(tmp_path):
    rows = [
        {"messages": [ASK, {**DONE, "tool_calls": [call()]}, RESULT, DONE], "tools": [{"name": "f", "parameters": {}}]},
        {
            "messages": [ASK, DONE],
            "tools": [{"name": "g", "description": "d", "parameters": {"y": {"enum": [1, None]}}}],
        },
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pa.ipc.new_file(tmp_path / "rows.arrow", (table := pa.Table.from_pylist(rows)).schema) as file:
        file.write_table(table)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = [
        [auto(record) for record in read_records(tmp_path / f"rows.{kind}")] for kind in ("jsonl", "parquet", "arrow")
    ]
    assert read[0] == read[1] == read[2]


def test_a_map_of_arrow_is_an_object(tmp_path):
    arguments = pa.array([[("x", "1")]], pa.map_(pa.string(), pa.string()))
    function = pa.StructArray.from_arrays([pa.array(["f"]), arguments], ["name", "arguments"])
    calls = pa.ListArray.from_arrays([0, 1], function)
    turn = pa.StructArray.from_arrays([pa.array(["assistant"]), calls], ["role", "tool_calls"])
    pq.write_table(pa.table({"messages": pa.ListArray.from_arrays([0, 1], turn)}), tmp_path / "map.parquet")
    (record,) = read_records(tmp_path / "map.parquet")
    assert to_messages(record["messages"], "messages")[0]["tool_calls"][0]["function"]["arguments"] == {"x": "1"}


@pytest.mark.parametrize("name", ["gemma4", "kimi_k2"])
@pytest.mark.parametrize("keys", [("tool_call_id",), ("name",), ()], ids=["ids", "names", "order"])
def test_the_exported_template_gives_results_to_the_same_calls(name, keys):
    told = {"f": {**RESULT, "tool_call_id": "c1", "name": "f"}, "g": {**RESULT, "tool_call_id": "c2", "name": "g"}}
    results = [{key: value for key, value in told[one].items() if key in ("role", "content", *keys)} for one in "gf"]
    calling = {"role": "assistant", "content": "", "tool_calls": [call(id="c1"), call("g", id="c2")]}
    tools = [{"type": "function", "function": {"name": one, "description": "d", "parameters": {}}} for one in "fg"]
    row = {"messages": [ASK, calling, *results, DONE], "tools": tools}
    tokenizer = tiny_tokenizer()
    _, template = create_template(name, tokenizer)
    ids = template.encode(row)["input_ids"]
    assert jinja_ids(row, template.jinja(), tokenizer) == ids
    first = {"gemma4": "response:{}{{", "kimi_k2": "Return of functions.{}:"}[name]
    text = tokenizer.decode(ids)
    expected = ["g", "f"] if keys else ["f", "g"]
    assert text.index(first.format(expected[0])) < text.index(first.format(expected[1]))
