import re

import pytest

from llmtune.data.preprocess import LAYOUTS, alpaca, auto, conversations, messages, query_response

U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
ROW = {"messages": [U, A]}


@pytest.mark.parametrize(
    ("layout", "record", "row"),
    [
        ("query-response", {"query": "Hi", "response": "Ho"}, ROW),
        ("query-response", {"query": "Hi", "response": "Ho", "system": "S", "history": None}, {**ROW, "system": "S"}),
        ("query-response", {"query": "Hi", "response": "Ho", "history": [["Hi", "Ho"]]}, {"messages": [U, A, U, A]}),
        ("query-response", {"query": "Hi", "response": None}, {"messages": [U]}),
        ("query-response", {"query": "Hi"}, {"messages": [U]}),
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Ho"}, ROW),
        ("alpaca", {"instruction": "H", "input": "i", "output": "Ho"}, {"messages": [{**U, "content": "H\ni"}, A]}),
        ("alpaca", {"instruction": "", "input": "Hi", "output": "Ho"}, ROW),
        ("alpaca", {"instruction": "Hi", "output": "Ho", "system": ""}, {**ROW, "system": ""}),
        ("alpaca", {"instruction": "Hi", "output": "  "}, {"messages": [U]}),
        ("messages", {"messages": [U, A]}, ROW),
        ("messages", {"messages": [{"role": "system", "content": "S"}, U, A]}, {**ROW, "system": "S"}),
        ("messages", {"messages": [U, {**A, "loss": False}]}, {"messages": [U, {**A, "loss": False}]}),
        ("messages", {"messages": [U, {**A, "loss": None}]}, ROW),
        ("messages", {"messages": [U]}, {"messages": [U]}),
        (
            "conversations",
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            ROW,
        ),
        (
            "conversations",
            {"conversations": [{"from": "user", "value": "Hi"}, {"from": "bot", "value": "Ho"}], "system": "S"},
            {**ROW, "system": "S"},
        ),
    ],
)
def test_each_layout_becomes_a_row_and_auto_finds_it(layout, record, row):
    assert LAYOUTS[layout][1](record) == row
    assert auto({**record, "__source__": "d.jsonl:1", "id": 3}) == row


def test_a_system_column_wins_over_a_system_turn():
    record = {"messages": [{"role": "system", "content": "turn"}, U, A], "system": "column"}
    assert messages(record)["system"] == "column"


@pytest.mark.parametrize(
    ("function", "record", "reason"),
    [
        (query_response, {"query": "", "response": "a"}, "no question (column 'query' is empty)"),
        (query_response, {"query": None, "response": "a"}, "no question (column 'query' is missing or null)"),
        (query_response, {"query": "q", "response": 5}, "column 'response' must be text, found int"),
        (query_response, {"query": ["q"], "response": "a"}, "column 'query' must be text, found list"),
        (query_response, {"query": "q", "response": "a", "history": ["x"]}, "pairs of [query, response], found 'x'"),
        (query_response, {"query": "q", "response": "a", "history": [["x"]]}, "found ['x']"),
        (query_response, {"query": "q", "response": "a", "history": [["x", ""]]}, "no answer (column 'history'"),
        (alpaca, {"instruction": "", "input": "", "output": "a"}, "no question (column 'instruction'"),
        (alpaca, {"instruction": "q", "output": {}}, "column 'output' must be text, found dict"),
        (messages, {"messages": []}, "expected a list of turns, found []"),
        (messages, {"messages": None}, "expected a list of turns, found None"),
        (messages, {"messages": ["Hi"]}, "a turn must have role and content, found 'Hi'"),
        (messages, {"messages": [{"content": "Hi"}]}, "a turn must have role and content"),
        (messages, {"messages": [{"role": "robot", "content": "Hi"}]}, "unknown role 'robot' (expected assistant"),
        (messages, {"messages": [{"role": "user", "content": ""}]}, "no question (column 'content'"),
        (messages, {"messages": [U, {"role": "assistant"}]}, "no answer (column 'content' is missing or null)"),
        (messages, {"messages": [U, U]}, "alternate user and assistant, found user, user"),
        (messages, {"messages": [A, U]}, "found assistant, user"),
        (messages, {"messages": [{"role": "system", "content": "S"}]}, "found none"),
        (messages, {"messages": [U, A, {"role": "system", "content": "S"}]}, "found user, assistant, system"),
        (conversations, {"conversations": [{"value": "Hi"}]}, "a turn must have from and value"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_the_reason(function, record, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        function(record)


def test_an_answer_of_no_turn_of_the_assistant_is_no_answer():
    """An empty answer inside a conversation is a fault, not a question to be answered."""
    with pytest.raises(ValueError, match="no answer"):
        messages({"messages": [U, {"role": "assistant", "content": " "}, U, A]})


def test_columns_that_fit_two_layouts_name_both():
    with pytest.raises(ValueError, match="alpaca and query-response"):
        auto({"instruction": "i", "query": "q"})


def test_columns_that_fit_no_layout_are_listed_with_what_was_expected():
    with pytest.raises(ValueError, match=r"\['text'\].*messages.*conversations.*instruction.*query"):
        auto({"text": "t", "__source__": "d.jsonl:1"})
