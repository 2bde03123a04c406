import json
import re

import pytest

from llmtune.data.columns import AmbiguousColumns
from llmtune.data.preprocess import Auto, Fill, auto

U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
ROW = {"messages": [U, A]}


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"query": "Hi", "response": "Ho"}, ROW),
        ({"query": "Hi", "response": "Ho", "system": "S", "history": None}, {**ROW, "system": "S"}),
        ({"query": "Hi", "response": "Ho", "history": [["Hi", "Ho"]]}, {"messages": [U, A, U, A]}),
        ({"query": "Hi", "response": None}, {"messages": [U]}),
        ({"query": "Hi"}, {"messages": [U]}),
        ({"instruction": "Hi", "input": "", "output": "Ho"}, ROW),
        ({"instruction": "H", "input": "i", "output": "Ho"}, {"messages": [{**U, "content": "H\ni"}, A]}),
        ({"instruction": "", "input": "Hi", "output": "Ho"}, ROW),
        ({"instruction": "Hi", "output": "Ho", "system": ""}, {**ROW, "system": ""}),
        ({"instruction": "Hi", "output": "  "}, {"messages": [U]}),
        ({"messages": [U, A]}, ROW),
        ({"messages": [{"role": "system", "content": "S"}, U, A]}, {**ROW, "system": "S"}),
        ({"messages": [U, {**A, "loss": False}]}, {"messages": [U, {**A, "loss": False}]}),
        ({"messages": [U, {**A, "loss": None}]}, ROW),
        ({"messages": [U, {**A, "weight": 0}]}, {"messages": [U, {**A, "loss": False}]}),
        ({"messages": [U]}, {"messages": [U]}),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            ROW,
        ),
        (
            {"conversations": [{"from": "user", "value": "Hi"}, {"from": "bot", "value": "Ho"}], "system": "S"},
            {**ROW, "system": "S"},
        ),
    ],
)
def test_each_layout_becomes_a_row(record, row):
    assert auto({**record, "__source__": "d.jsonl:1", "id": 3}) == row


@pytest.mark.parametrize("column", ["S", " S\n", "", None])
def test_a_system_column_beside_a_system_turn_must_say_the_same(column):
    record = {"messages": [{"role": "system", "content": "S"}, U, A], "system": column}
    assert auto(record) == {**ROW, "system": "S"}


def test_a_table_may_carry_an_empty_history_beside_messages():
    assert auto({"messages": [U, A], "history": []}) == auto({"messages": [U, A], "history": None}) == ROW


def test_a_history_beside_messages_is_refused():
    with pytest.raises(AmbiguousColumns, match="'messages' and 'history' both fit the role 'conversation'"):
        auto({"messages": [U, A], "history": [["Hi", "Ho"]]})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"query": "", "response": "a"}, "no question (column 'query' is empty)"),
        ({"query": None, "response": "a"}, "no question (column 'query' is missing or null)"),
        ({"query": "q", "response": 5}, "column 'response' must be text, found int"),
        ({"query": ["q"], "response": "a"}, "a turn of 'query' must have a role"),
        ({"query": "q", "answers": ["yes", "yeah"]}, "column 'answers' must be one text, found 2 of them"),
        (
            {"messages": [{"role": "system", "content": "turn"}, U, A], "system": "column"},
            "has two system prompts: 'column' in column 'system', 'turn' in its messages",
        ),
        ({"query": "q", "response": "a", "history": ["x"]}, "pairs of [query, response], found 'x'"),
        ({"query": "q", "response": "a", "history": [["x"]]}, "found ['x']"),
        ({"query": "q", "response": "a", "history": [["x", ""]]}, "no answer (column 'history'"),
        ({"instruction": "", "input": "", "output": "a"}, "no question (column 'instruction'"),
        ({"instruction": "q", "output": {}}, "column 'output' must be text, found dict"),
        ({"messages": []}, "column 'messages' must be a list of turns, found []"),
        ({"messages": None}, "must be a list of turns, found None"),
        ({"messages": [U, {**A, "weight": 0.5}]}, "'weight' must be true or false, found 0.5"),
        ({"messages": ["Hi"]}, "a turn of 'messages' must have a role and a content, found 'Hi'"),
        ({"messages": [{"content": "Hi"}]}, "must have a role and a content"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "unknown role 'robot' (expected one of user"),
        ({"messages": [{"role": "user", "content": ""}]}, "no question (column 'content'"),
        ({"messages": [U, {"role": "assistant"}]}, "no answer (column 'content' is missing or null)"),
        ({"messages": [U, U]}, "alternate user and assistant, found user, user"),
        ({"messages": [A, U]}, "found assistant, user"),
        ({"messages": [{"role": "system", "content": "S"}]}, "found none"),
        ({"messages": [U, A, {"role": "system", "content": "S"}]}, "found user, assistant, system"),
        ({"conversations": [{"value": "Hi"}]}, "must have a role and a content"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_the_reason(record, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        auto(record)


def test_an_answer_of_no_turn_of_the_assistant_is_no_answer():
    """An empty answer inside a conversation is a fault, not a question to be answered."""
    with pytest.raises(ValueError, match="no answer"):
        auto({"messages": [U, {"role": "assistant", "content": " "}, U, A]})


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        (["question", "answer", "solution"], "answer", "solution"),
        (["instruction", "query", "output"], "instruction", "query"),
        (["messages", "prompt"], "messages", "prompt"),
        (["conversations", "messages"], "conversations", "messages"),
        (["prompt", "chosen", "rejected", "response"], "chosen", "response"),
    ],
)
def test_columns_that_both_fit_a_role_are_refused_by_name(columns, first, second):
    with pytest.raises(AmbiguousColumns, match=f"'{first}' and '{second}' both fit the role"):
        auto(dict.fromkeys(columns, "x"))


def test_of_two_columns_that_fit_the_empty_one_is_not_meant():
    assert auto({"question": "Hi", "answer": "Ho", "solution": None}) == ROW


def test_columns_that_fit_no_role_are_listed_with_a_value_and_what_was_looked_for():
    with pytest.raises(ValueError, match=r"found bar \('u'\), foo \('t'\), looked for messages: .*query: .*response: "):
        auto({"foo": "t", "bar": "u", "__source__": "d.jsonl:1"})


def test_what_is_advised_for_unknown_columns_guesses_no_meaning():
    record = {"Antwort des Supports": "Gern.", "ticket_id": "1041"}
    with pytest.raises(ValueError, match="no column fits") as refused:
        auto(record)
    advised = json.loads(str(refused.value).rpartition("--columns '")[2].rstrip("'"))
    assert not advised.keys() & record.keys()
    with pytest.raises(ValueError, match="no such column"):
        Auto(advised)(record)


def test_names_of_columns_are_known_in_any_case():
    assert auto({"Question": "Hi", "Answer": "Ho"}) == ROW
    assert auto({"QUERY": "Hi", "Response": "Ho"}) == ROW


def test_a_name_that_is_written_exactly_wins_over_another_case():
    assert auto({"Query": "not this", "query": "Hi", "response": "Ho"}) == ROW


def test_of_two_columns_for_one_role_neither_is_preferred_in_what_is_advised():
    with pytest.raises(ValueError, match="both fit the role 'response'") as refused:
        auto({"question": "q", "answer": "a", "solution": "s"})
    assert all(f'{{"{column}": "-"}}' in str(refused.value) for column in ("answer", "solution"))


def test_a_mapped_column_wins_its_role_and_an_ignored_one_has_none():
    record = {"question": "Hi", "answer": "Ho", "solution": "42"}
    assert Auto({"answer": "response"})(record) == ROW
    assert Auto({"solution": "-"})(record) == ROW
    assert Auto({"a": "query", "b": "response"})({"a": "Hi", "b": "Ho", "query": "not this"}) == ROW


def test_columns_without_a_role_are_remembered():
    preprocess = Auto()
    preprocess({"query": "Hi", "response": "Ho", "id": 1, "license": "x"})
    assert preprocess.unused == {"id", "license"}


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"text": "Some text."}, {"messages": [{"role": "assistant", "content": "Some text."}]}),
        ({"conversation": [{"human": "Hi", "assistant": "Ho"}]}, ROW),
        ({"conversation": "[{'human': 'Hi', 'assistant': 'Ho'}]"}, ROW),
        ({"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]'}, ROW),
        ({"query": "Hi", "response": "Ho", "history": "[['Hi', 'Ho']]"}, {"messages": [U, A, U, A]}),
        ({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, {**ROW, "rejected": [U, {**A, "content": "No"}]}),
        (
            {"query": "Hi", "response": "Ho", "rejected_response": "No"},
            {**ROW, "rejected": [U, {**A, "content": "No"}]},
        ),
        (
            {"chosen": [U, A], "rejected": [U, {**A, "content": "No"}]},
            {**ROW, "rejected": [U, {**A, "content": "No"}]},
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Ho"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            {**ROW, "rejected": [U, {**A, "content": "No"}]},
        ),
        ({"prompt": "Hi", "completion": "Ho", "label": True}, {**ROW, "label": True}),
        ({"query": "Hi", "response": "Ho", "label": "False"}, {**ROW, "label": False}),
        ({"query": "Hi", "response": "Ho", "label": 1}, ROW),
        (
            {"query": "Look", "response": "Ho", "image": "a.png"},
            {"messages": [{"role": "user", "content": "<image>Look"}, A], "images": ["a.png"]},
        ),
        (
            {"query": "<img>a.png</img>Look", "response": "Ho"},
            {"messages": [{"role": "user", "content": "<image>Look"}, A], "images": ["a.png"]},
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
                            {"type": "text", "text": "Look"},
                        ],
                    },
                    A,
                ]
            },
            {"messages": [{"role": "user", "content": "<image>Look"}, A], "images": ["http://x/a.png"]},
        ),
        (
            {"query": "Look", "response": "Ho", "images": [{"bytes": b"\x89PNG", "path": None}]},
            {"messages": [{"role": "user", "content": "<image>Look"}, A], "images": ["data:image/png;base64,iVBORw=="]},
        ),
        (
            {
                "tools": '[{"name": "add", "parameters": {}}]',
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "function_call", "value": '{"name": "add", "arguments": "{\\"a\\": 1}"}'},
                    {"from": "observation", "value": "2"},
                    {"from": "gpt", "value": "Ho"},
                ],
            },
            {
                "messages": [
                    U,
                    {"role": "assistant", "content": "", "tool_calls": [CALL]},
                    {"role": "tool", "content": "2"},
                    A,
                ],
                "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
            },
        ),
    ],
)
def test_the_other_forms_of_data_become_rows(record, row):
    assert auto(record) == row


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"query": "<image>Look", "response": "a", "images": []}, None),
        ({"query": "<image><image>", "response": "a", "images": ["x"]}, "2 marks <image> for 1 images"),
        ({"query": "<img>x</img>", "response": "a", "images": ["x"]}, "both in a column and inline"),
        ({"prompt": "Hi", "chosen": "Ho", "rejected": "Ho"}, "the rejected answer is the preferred one"),
        ({"prompt": "Hi", "chosen": None, "rejected": "Ho"}, "no answer that was preferred"),
        ({"messages": [U, {"role": "assistant", "tool_calls": [{"x": 1}]}]}, "a tool call must have a name"),
        ({"messages": "not a list"}, "must be a list, found the text 'not a list'"),
    ],
)
def test_what_does_not_go_together_is_refused(record, reason):
    if reason is None:
        assert "images" not in auto(record)
        return
    with pytest.raises(ValueError, match=re.escape(reason)):
        auto(record)


def test_fill_puts_columns_and_choices_into_texts():
    fill = Fill(query="Sentence: {sentence}\nOutput:", response="{label}", choices={"label": ["bad", "good"]})
    question = {"role": "user", "content": "Sentence: nice {x}\nOutput:"}
    answer = {"role": "assistant", "content": "good"}
    for label in (1, 1.0, "1", "1.0", "good"):
        assert fill({"sentence": "nice {x}", "label": label}) == {"messages": [question, answer]}
    for label, reason in ((2, "must be 0 to 1, found 2"), (-1, "found -1"), (None, "missing or null")):
        with pytest.raises(ValueError, match=reason):
            fill({"sentence": "s", "label": label})
