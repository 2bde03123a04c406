from itertools import islice

import pytest

from llmtune.data import encode as encode_module
from llmtune.data import stream as stream_module
from llmtune.data.encode import Encoder, encode_rows
from llmtune.data.report import DataReport
from llmtune.data.spool import spooled
from llmtune.data.stream import Stream, interleaved, shuffled
from llmtune.data.truncate import Limit
from llmtune.errors import DataError
from llmtune.template.chat_format import ChatFormat

ROWS = 95


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encode_module, "CHUNK", 10)
    monkeypatch.setattr(stream_module, "_FIRST", 15)
    monkeypatch.setattr(stream_module, "_WINDOW", 30)
    return tmp_path / "cache"


@pytest.fixture
def rows():
    """Some rows of different lengths; every tenth ends with a question."""
    return spooled(
        {
            "messages": [
                {"role": "user", "content": f"{number} {'q' * (number % 7)}"},
                *([] if number % 10 == 0 else [{"role": "assistant", "content": "a" * (number % 13 + 1)}]),
            ],
            "source": f"d.jsonl:{number}",
        }
        for number in range(ROWS)
    )


@pytest.fixture
def stream(rows, tokenizer, chatml):
    def make(**settings):
        encoder = Encoder(template=ChatFormat(chatml(), tokenizer), limit=Limit())
        return Stream(
            **{"lines": rows.lines, "encoder": encoder, "report": DataReport(), "buffer_size": 20, **settings}
        )

    return make


def one_pass(stream, count=ROWS - 10):
    return [batch[0]["input_ids"] for batch in islice(stream.steps(1), count)]


def test_every_pass_has_each_usable_row_once_in_an_order_of_its_own(stream):
    both = one_pass(stream(), 2 * (ROWS - 10))
    first, second = both[: ROWS - 10], both[ROWS - 10 :]
    assert len({tuple(ids) for ids in first}) == ROWS - 10
    assert sorted(first) == sorted(second)
    assert first != second
    assert one_pass(stream()) == first
    assert one_pass(stream(seed=1)) != first


def test_unusable_rows_are_counted_in_the_first_pass_only(stream):
    running = stream()
    one_pass(running, 2 * ROWS)
    assert (sum(running.report.dropped.values()), running.report.train) == (10, ROWS - 10)


def test_too_many_unusable_rows_stop_the_stream(stream, fails):
    running = stream(max_dropped_ratio=0.05, report=DataReport(read=ROWS))
    assert "--max_dropped_ratio" in fails(DataError, one_pass, running).problem


def test_a_stream_without_a_usable_row_says_so(stream, fails):
    assert "no row is left" in fails(DataError, one_pass, stream(lines=lambda: iter(()))).problem


@pytest.mark.parametrize("pack_to", [None, 200])
@pytest.mark.parametrize("start", [1, 7, 13])
def test_a_later_start_goes_on_with_exactly_what_comes_next(stream, pack_to, start):
    whole = list(islice(stream(pack_to=pack_to).steps(3), 40))
    assert list(islice(stream(pack_to=pack_to).steps(3, start=start), 40 - start)) == whole[start:]


@pytest.mark.parametrize("pack_to", [None, 200])
def test_ranks_share_the_samples_of_each_step_of_one_process(stream, pack_to):
    alone = islice(stream(pack_to=pack_to).steps(4), 20)
    ranks = [islice(stream(pack_to=pack_to).steps(4, rank=rank, world_size=2), 20) for rank in (0, 1)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert len(first) == len(second)
        assert sorted(one["sources"] for one in first + second) == sorted(one["sources"] for one in whole)


def test_packs_are_full_and_hold_each_row_once(stream):
    running = stream(pack_to=200)
    packs = []
    for batch in running.steps(1):
        if running.passes:
            break
        packs += batch
    lengths = [length for one in packs for length in one.get("lengths", [len(one["input_ids"])])]
    assert len(lengths) == ROWS - 10
    assert all(len(one["input_ids"]) <= 200 for one in packs)
    assert len(packs) < (ROWS - 10) / 2


def test_what_an_eager_run_encoded_is_not_encoded_again(stream, rows, monkeypatch):
    running = stream()
    encode_rows(rows.lines(), running.encoder, DataReport())
    expected = one_pass(stream())
    monkeypatch.setattr(ChatFormat, "encode_batch", None)
    assert one_pass(stream()) == expected


def test_the_buffer_gives_away_its_first_item_before_it_is_full():
    taken = []
    items = shuffled((taken.append(number) or number for number in range(10_000)), 5000, seed=1)
    next(items)
    assert len(taken) == 15
    assert sorted([*items]) != list(range(10_000))
    assert len(taken) == 10_000


@pytest.mark.parametrize(("until", "ends"), [("first_exhausted", False), ("all_exhausted", True)])
def test_sources_are_interleaved_in_their_own_order(until, ends):
    sources = [
        lambda: iter([("a", number) for number in range(5)]),
        lambda: iter([("b", number) for number in range(50)]),
    ]
    lines = list(interleaved(sources, [0.5, 0.5], until=until, seed=3))
    b = [number for name, number in lines if name == "b"]
    assert b[:3] == [0, 1, 2]
    assert (len(b) >= 50) == ends
    assert [number for name, number in lines if name == "a"][:5] == list(range(5))
