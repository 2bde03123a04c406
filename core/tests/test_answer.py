import json
import re

import pytest

from llmtune.config.generation import GenerationSection
from llmtune.infer.answer import Answerer, answer_rows, result_line
from llmtune.interfaces.engine import Chunk, Engine
from llmtune.template.chat_format import ChatFormat


class Echo(Engine):
    """Answers with the text of its prompt in two chunks, several requests in turns; keeps what it was asked."""

    def start(self, model, tokenizer):
        self.tokenizer, self.asked, self.batches = tokenizer, [], []

    def generate(self, requests):
        self.asked += requests
        self.batches.append(len(requests))
        texts = {request.id: self.tokenizer.decode(request.input_ids) for request in requests}
        for name, text in texts.items():
            yield Chunk(id=name, text=text[:3])
        for name, text in texts.items():
            yield Chunk(id=name, text=text[3:], finish_reason="stop")


@pytest.fixture
def engine(tokenizer):
    engine = Echo()
    engine.start(None, tokenizer)
    return engine


@pytest.fixture
def answerer(engine, tokenizer, chatml):
    template = ChatFormat(chatml(prompt=["{{QUERY}}|"], chat_sep=[";"], system_prefix=["({{SYSTEM}})"]), tokenizer)
    return Answerer(engine, template, GenerationSection(), stop_words=["Observation:"], seed=7)


def row(*texts, **more):
    roles = ["user", "assistant"] * len(texts)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **more}


def test_an_answer_comes_piece_by_piece_and_ends_with_a_reason(answerer):
    chunks = list(answerer.stream(row("question", system="S")))
    assert "".join(chunk.text for chunk in chunks) == "(S)question|"
    assert [chunk.finish_reason for chunk in chunks] == [None, "stop"]


def test_what_the_prompt_begins_the_answer_with_belongs_to_its_text(engine, tokenizer, chatml):
    parts = {"prompt": ["{{QUERY}}|"], "chat_sep": [";"], "thinking": "strip_history", "thinking_prefix": ["<think>\n"]}
    answerer = Answerer(engine, ChatFormat(chatml(**parts), tokenizer), GenerationSection())
    assert "".join(chunk.text for chunk in answerer.stream(row("q"))) == "<think>\nq|<think>\n"
    assert answerer.answers([[]]) == ["<think>\n"]
    again = answerer.prompt(row("q", "<think>\nI look.\n</think>\n\na", "r"))
    assert tokenizer.decode(again) == "q|a;r|<think>\n", "thoughts of earlier answers are not shown again"


def test_a_request_carries_what_ends_an_answer(answerer, engine, tokenizer):
    list(answerer.stream(row("q")))
    (request,) = engine.asked
    assert request.stop_token_ids == [tokenizer.eos_token_id]
    assert request.stop_words == ["<|im_end|>", "Observation:"]
    assert request.settings.max_new_tokens == GenerationSection().max_new_tokens


def test_the_seed_goes_with_the_first_request_alone_so_that_a_repeated_question_may_vary(answerer, engine):
    answerer.answers([answerer.prompt(row("a")), answerer.prompt(row("b"))])
    list(answerer.stream(row("c")))
    assert [request.seed for request in engine.asked] == [7, None, None]


def test_several_rows_are_one_batch_and_answers_come_in_their_order(answerer, engine):
    prompts = [answerer.prompt(row(text)) for text in ("one", "two", "one")]
    assert answerer.answers(prompts) == ["one|", "two|", "one|"]
    assert engine.batches == [3]
    assert answerer.answers([]) == []


def test_rows_are_answered_in_batches_into_a_file(answerer, engine, tmp_path, capsys):
    rows = [row(f"q{number}", "label", source=f"d:{number}") for number in range(5)]
    answer_rows(answerer, rows, tmp_path / "result.jsonl", batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert engine.batches == [2, 2, 1]
    assert [(line["query"], line["response"], line["label"], line["source"]) for line in lines] == [
        (f"q{number}", f"q{number}|", "label", f"d:{number}") for number in range(5)
    ]
    assert re.findall(r"\[query\] (.*)\n\[response\] (.*)\n\[label\] (.*)", capsys.readouterr().out) == [
        (f"q{number}", f"q{number}|", "label") for number in range(5)
    ]


def test_without_verbose_there_is_a_bar_instead_of_the_answers(answerer, tmp_path, capsys):
    answer_rows(answerer, [row("q"), row("p")], tmp_path / "r.jsonl", batch_size=1, verbose=False)
    out, err = capsys.readouterr()
    assert (out, "2/2" in err) == ("", True)


def test_without_a_file_the_answers_are_shown_only(answerer, capsys):
    answer_rows(answerer, [row("q")], None, batch_size=1)
    assert "[response] q|" in capsys.readouterr().out


def test_the_label_is_not_shown_to_the_model(answerer, tmp_path):
    answer_rows(answerer, [row("q", "secret")], tmp_path / "r.jsonl", batch_size=1)
    assert json.loads((tmp_path / "r.jsonl").read_text())["response"] == "q|"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (row("q", "a"), {"query": "q", "label": "a", "history": []}),
        (row("q"), {"query": "q", "label": None, "history": []}),
        (row("1", "a", "2", "b"), {"query": "2", "label": "b", "history": [["1", "a"]]}),
        (row("1", "a", "2"), {"query": "2", "label": None, "history": [["1", "a"]]}),
    ],
)
def test_a_result_has_swifts_layout(given, expected):
    line = result_line({**given, "system": "S", "source": "d:1"}, "r")
    assert line == {"response": "r", "system": "S", "source": "d:1", **expected}


def test_a_row_with_two_results_of_tools_in_a_row_is_answered_as_the_others_are(answerer, tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    tools = {"role": "tool", "content": "1"}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call, call]}]
    calling = {"messages": [*turns, tools, tools, {"role": "assistant", "content": "done"}]}
    line = result_line(calling, "answer")
    assert (line["label"], line["history"], line["messages"]) == ("done", [], [*turns, tools, tools])
    assert (
        result_line({"messages": turns}, "answer")["label"]
        == '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]'
    )
