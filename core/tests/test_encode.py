import numpy as np
import pytest

from llmtune.data import encode as encode_module
from llmtune.data.encode import Encoder, encode_rows
from llmtune.data.encoded import Chunk, EncodedRows, Outcome
from llmtune.data.report import DataReport
from llmtune.data.spool import spooled
from llmtune.data.truncate import Limit
from llmtune.errors import DataError
from llmtune.template.chat_format import ChatFormat


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoded"


@pytest.fixture
def encoder(tokenizer, chatml):
    def make(**limit):
        return Encoder(template=ChatFormat(chatml(), tokenizer), limit=Limit(**limit))

    return make


@pytest.fixture
def encode(encoder):
    """Encode rows given as (question, answer) and return (samples, report)."""

    def run(*pairs, workers=1, **limit):
        report = DataReport(read=len(pairs))
        rows = [row(*pair, place=f"d.jsonl:{number}") for number, pair in enumerate(pairs, start=1)]
        return list(encode_rows(spooled(rows).lines(), encoder(**limit), report, workers=workers)), report

    return run


def row(question, answer, *, place="d.jsonl:1"):
    turns = [{"role": "user", "content": question}] if question else []
    turns += [{"role": "assistant", "content": answer}] if answer else []
    return {"messages": turns, "source": place}


def test_tokens_and_targets_are_counted(encode):
    (one, two), report = encode(("q", "abc"), ("q", "d"))
    assert report.tokens == len(one["input_ids"]) + len(two["input_ids"])
    assert report.target_tokens == sum(label != -100 for label in one["labels"] + two["labels"]) == 3 + 1 + 1 + 1
    assert list(report.lengths) == [len(one["input_ids"]), len(two["input_ids"])]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_gives_what_each_row_gives_alone_in_order(encode, encoder, workers, monkeypatch):
    monkeypatch.setattr(encode_module, "CHUNK", 7)
    pairs = [(f"question {number}", "answer <|im_end|> " * (number % 5 + 1)) for number in range(40)]
    samples, _ = encode(*pairs, workers=workers)
    template = encoder().template
    assert samples == [template.encode(row(*pair)) for pair in pairs]


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


def test_truncation_on_the_right_keeps_the_closing_tokens_of_the_answer(encode, encoder):
    (whole,), _ = encode(("q", "a long answer"))
    (closing,) = encoder().template.closing_ids()
    size = len(whole["input_ids"]) - 6
    (cut,), report = encode(("q", "a long answer"), max_length=size, truncation="truncation_right")
    assert cut["input_ids"] == [*whole["input_ids"][: size - 1], closing]
    assert cut["labels"] == [*whole["labels"][: size - 1], closing]
    assert report.truncated == 1


def test_a_cut_between_answers_ends_after_the_last_whole_one(encoder):
    turns = [("user", "q"), ("assistant", "abc"), ("user", "a long question"), ("assistant", "x")]
    long = {"messages": [{"role": role, "content": text} for role, text in turns], "source": "s"}
    whole = encoder().template.encode(long)
    first_end = max(place for place, label in enumerate(whole["labels"][:-6]) if label != -100) + 1
    (cut,) = encoder(max_length=first_end + 8, truncation="truncation_right").outcome(long).samples
    assert cut["input_ids"] == whole["input_ids"][:first_end]


def test_a_cut_that_leaves_no_answer_leaves_the_row_out(encode):
    for size, side in ((1, "truncation_left"), (8, "truncation_right")):
        encoded, report = encode(("q", "abc"), max_length=size, truncation=side)
        assert (encoded, sum(report.dropped.values())) == ([], 1)


def test_split_cuts_plain_text_into_pieces_without_a_loss_and_leaves_conversations_out(encode):
    samples, report = encode((None, "some long text"), ("q", "some long answer"), max_length=6, truncation="split")
    (whole,), _ = encode((None, "some long text"))
    assert [len(sample["input_ids"]) for sample in samples][:-1] == [6] * (len(samples) - 1)
    assert [token for sample in samples for token in sample["input_ids"]] == whole["input_ids"]
    assert (report.truncated, report.dropped) == (0, {"longer than --max_length": 1})


def test_weights_are_cut_and_stored_with_the_ids(tmp_path):
    class Weighted:
        def encode_samples(self, rows):
            return [[{"input_ids": [1, 2, 3], "labels": [1, 2, -100], "loss_weights": [0.5, 0.25, 0.0]}] for _ in rows]

        def closing_ids(self):
            return []

    encoder = Encoder(template=Weighted(), limit=Limit(max_length=2, truncation="truncation_left"))
    lines = spooled([row("q", "a")] * 2).lines()
    cut = {"input_ids": [2, 3], "labels": [2, -100], "loss_weights": [0.25, 0.0]}
    assert list(encode_rows(lines, encoder, DataReport())) == [cut, cut]


def test_a_row_without_an_answer_is_dropped_with_its_place(encode):
    encoded, report = encode(("q", "abc"), ("q", None))
    assert len(encoded) == 1
    ((reason, places),) = report.examples.items()
    assert ("no answer" in reason, places[0].startswith("d.jsonl:2")) == (True, True)


def test_too_many_dropped_rows_stop_the_run_and_show_why(encode, fails):
    _, report = encode(("q", "abc"), ("q", None))
    report.check_dropped(0.5)
    error = fails(DataError, report.check_dropped, 0.49)
    assert ("50.0%" in error.problem, "--max_dropped_ratio" in error.problem) == (True, True)
    assert ("d.jsonl:2" in error.fix, "no answer" in error.fix) == (True, True)


# --- the store ------------------------------------------------------------------------------------


def stored(cache):
    return {path: path.read_bytes() for path in cache.rglob("*.arrow")}


def test_what_was_encoded_is_found_again_with_the_same_report(encode, cache, monkeypatch):
    first, report = encode(("q", "abc"), ("q", None), ("q", "x" * 99), max_length=50)
    files = stored(cache)
    monkeypatch.setattr(ChatFormat, "encode_batch", None)
    again, same = encode(("q", "abc"), ("q", None), ("q", "x" * 99), max_length=50)
    assert (again, same, stored(cache)) == (first, report, files)


@pytest.mark.parametrize("change", ["row", "limit", "template", "tokenizer"])
def test_another_row_limit_template_or_tokenizer_is_encoded_anew(encoder, chatml, tokenizer, cache, change):
    lines = list(spooled([row("q", "a")]).lines())
    encode_rows(lines, encoder(), DataReport())
    if change == "row":
        encode_rows(spooled([row("q", "b")]).lines(), encoder(), DataReport())
    if change == "limit":
        encode_rows(lines, encoder(max_length=99), DataReport())
    if change == "template":
        template = ChatFormat(chatml(default_system="S"), tokenizer)
        encode_rows(lines, Encoder(template=template, limit=Limit()), DataReport())
    if change == "tokenizer":
        tokenizer.add_tokens(["a new one"])
        encode_rows(lines, encoder(), DataReport())
    assert len(stored(cache)) == 2


def test_where_a_row_stands_does_not_decide_whether_it_is_encoded(encoder, cache):
    for place in ("a.jsonl:1", "b.jsonl:9"):
        encode_rows(spooled([row("q", "a", place=place)]).lines(), encoder(), DataReport())
    assert len(stored(cache)) == 1


def test_a_chunk_survives_a_trip_to_another_process(tmp_path):
    import pickle

    sample = {"input_ids": [5, 6], "labels": [-100, 6]}
    chunk = Chunk.write(tmp_path / "c.arrow", [Outcome(samples=[sample, sample], length=2), Outcome(problem="p")])
    rows = pickle.loads(pickle.dumps(EncodedRows([chunk, chunk])))
    assert (list(rows), rows[3], len(rows)) == ([sample] * 4, sample, 4)
    assert rows.lengths.tolist() == [2, 2, 2, 2]
    assert np.array_equal(chunk.rows, [0, 0])
