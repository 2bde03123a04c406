import pytest

from llmtune.data.encode import check_dropped, encode_rows
from llmtune.data.report import DataReport
from llmtune.errors import DataError
from llmtune.template.chat_format import ChatFormat


@pytest.fixture
def encode(tokenizer, chatml):
    """Encode rows given as (question, answer) and return (encoded, report)."""

    def run(*pairs, max_length=-1, truncation="delete"):
        report = DataReport(read=len(pairs))
        rows = [row(*pair, place=f"d.jsonl:{number}") for number, pair in enumerate(pairs, start=1)]
        template = ChatFormat(chatml(), tokenizer)
        return encode_rows(rows, template, max_length=max_length, truncation=truncation, report=report), report

    return run


def row(question, answer, *, place):
    turns = [{"role": "user", "content": question}]
    turns += [{"role": "assistant", "content": answer}] if answer else []
    return {"messages": turns, "source": place}


def test_tokens_and_targets_are_counted(encode):
    (one, two), report = encode(("q", "abc"), ("q", "d"))
    assert report.tokens == len(one["input_ids"]) + len(two["input_ids"])
    assert report.target_tokens == sum(label != -100 for label in one["labels"] + two["labels"]) == 3 + 1 + 1 + 1


def test_a_row_of_exactly_the_longest_length_is_kept(encode):
    (one,), _ = encode(("q", "abc"))
    length = len(one["input_ids"])
    assert len(encode(("q", "abc"), max_length=length)[0]) == 1
    assert encode(("q", "abc"), max_length=length - 1)[0] == []


def test_longer_rows_are_one_kind_of_drop_with_each_length(encode):
    encoded, report = encode(("q", "a" * 50), ("q", "b"), ("q", "c" * 60), max_length=40)
    assert len(encoded) == 1
    assert report.dropped == {"longer than --max_length": 2}
    assert [place.split(": ")[0] for place in report.examples["longer than --max_length"]] == ["d.jsonl:1", "d.jsonl:3"]
    assert "--max_length is 40" in report.examples["longer than --max_length"][0]


def test_truncation_on_the_left_keeps_the_end_of_ids_and_labels(encode):
    (whole,), _ = encode(("question", "answer"))
    (cut,), report = encode(("question", "answer"), max_length=10, truncation="truncation_left")
    assert cut == {key: values[-10:] for key, values in whole.items()}
    assert report.truncated == 1


def test_truncation_cuts_weights_with_the_ids():
    class Weighted:
        def encode(self, row):
            return {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "loss_weights": [0.1, 0.2, 0.3]}

    arguments = {"max_length": 2, "truncation": "truncation_left", "report": DataReport()}
    assert encode_rows([{"source": "s"}], Weighted(), **arguments) == [
        {"input_ids": [2, 3], "labels": [2, 3], "loss_weights": [0.2, 0.3]}
    ]


def test_a_row_without_a_target_left_is_dropped_not_trained_at_zero(encode):
    encoded, report = encode(("q", "abc"), max_length=1, truncation="truncation_left")
    assert (encoded, sum(report.dropped.values())) == ([], 1)
    assert "no target token" in next(iter(report.dropped))


def test_a_row_without_an_answer_is_dropped_with_its_place(encode):
    encoded, report = encode(("q", "abc"), ("q", None))
    assert len(encoded) == 1
    ((reason, places),) = report.examples.items()
    assert ("no answer" in reason, places[0].startswith("d.jsonl:2")) == (True, True)


def test_too_many_dropped_rows_stop_the_run_and_show_why(encode, fails):
    _, report = encode(("q", "abc"), ("q", None))
    check_dropped(report, 0.5)
    error = fails(DataError, check_dropped, report, 0.49)
    assert ("50.0%" in error.problem, "--max_dropped_ratio" in error.problem) == (True, True)
    assert ("d.jsonl:2" in error.fix, "no answer" in error.fix) == (True, True)
