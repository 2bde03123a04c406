import pytest

from llmtune.data.load import Mixing, RowLoader
from llmtune.data.mix import interleave, sample, split
from llmtune.data.report import DataReport
from llmtune.data.select import select_dataset
from llmtune.errors import DataError, UnknownName, UsageError
from llmtune.model.fetch import Fetcher
from llmtune.plugins.manager import PluginManager


class Loading:
    """Loads the datasets of a test with a catalogue of its own; `report` is the run's."""

    def __init__(self, catalogue, run):
        manager = PluginManager(catalogue)
        self.catalogue, self.report = catalogue, DataReport()
        fetcher = Fetcher(manager, run, hub=None, offline=True)
        self.loader = RowLoader(manager, fetcher, run, lambda kind, name: None, self.report)

    def __call__(self, *texts, validation=(), ratio=0.25, seed=42, **mixing):
        train, held_out = (
            [select_dataset(str(text), self.catalogue) for text in group] for group in (texts, validation)
        )
        return self.loader.load(train, held_out, Mixing(test_ratio=ratio, seed=seed, **mixing))


@pytest.fixture
def load(site, run_context):
    return Loading(site.catalogue(), run_context)


@pytest.fixture
def dataset(jsonl):
    def write(name, count):
        return jsonl(f"{name}.jsonl", [{"query": f"{name}{number}", "response": "r"} for number in range(count)])

    return write


def queries(rows):
    return [row["messages"][0]["content"] for row in rows]


@pytest.mark.parametrize(("count", "passes"), [(None, 1), (10, 1), (20, 2)])
def test_whole_passes_keep_the_order(count, passes):
    assert sample(10, count, seed=1).tolist() == list(range(10)) * passes


def test_a_sample_draws_without_repetition_in_order_and_the_same_for_the_same_seed():
    drawn = sample(10, 4, seed=1).tolist()
    assert drawn == sorted(set(drawn))
    assert sample(10, 4, seed=1).tolist() == drawn
    assert sample(10, 4, seed=2).tolist() != drawn


def test_a_larger_sample_repeats_every_row_before_it_draws_the_rest():
    drawn = sample(10, 23, seed=1).tolist()
    assert len(drawn) == 23
    assert {drawn.count(row) for row in range(10)} == {2, 3}


@pytest.mark.parametrize(
    ("rows", "ratio", "held_out"), [(10, 0.2, 2), (10, 0.001, 1), (2, 0.001, 1), (1, 0.5, 0), (10, 0.0, 0), (0, 0.5, 0)]
)
def test_validation_gets_its_share_and_at_least_one_row_where_there_are_two(rows, ratio, held_out):
    train, validation = split(rows, ratio, seed=1)
    assert len(validation) == held_out
    assert sorted([*train, *validation]) == list(range(rows))
    assert (len(train) > 0) == (rows > 0)


def test_training_keeps_a_row_however_large_the_share_is():
    assert len(split(10, 0.99, seed=1)[0]) > 0


def test_interleaving_keeps_each_order_and_stops_with_the_first_that_is_used_up():
    positions = interleave([100, 1000], [0.5, 0.5], until="first_exhausted", seed=1).tolist()
    first, second = ([one for one in positions if (one < 100) == small] for small in (True, False))
    assert first == list(range(100))
    assert second == list(range(100, 100 + len(second)))
    assert 60 < len(second) < 140
    assert positions[-1] == 99


def test_interleaving_until_all_are_used_up_begins_the_smaller_ones_again():
    positions = interleave([3, 30], [0.5, 0.5], until="all_exhausted", seed=1).tolist()
    first, second = ([one for one in positions if (one < 3) == small] for small in (True, False))
    assert second == list(range(3, 33))
    assert first[:7] == [0, 1, 2, 0, 1, 2, 0]


def test_datasets_are_interleaved_and_general_rows_mixed_in(load, dataset):
    a, b, general = dataset("a", 40), dataset("b", 40), dataset("g", 7)
    mixed = queries(load(a, b, ratio=0.0, weights=[0.9, 0.1]).train)
    assert [query for query in mixed if query.startswith("a")] == [f"a{number}" for number in range(40)]
    assert 0 < sum(query.startswith("b") for query in mixed) < 20
    selected = [select_dataset(str(general), load.catalogue)]
    rows = queries(load(a, ratio=0.0, general=selected, general_ratio=0.25).train)
    assert (len(rows), sum(query.startswith("g") for query in rows)) == (50, 10)


def test_a_split_stays_when_another_dataset_is_added(load, dataset):
    a, b = dataset("a", 20), dataset("b", 20)
    alone, together, after = load(a), load(a, b), load(b, a)
    assert [query for query in queries(together.validation) if query.startswith("a")] == queries(alone.validation)
    assert [query for query in queries(after.validation) if query.startswith("a")] == queries(alone.validation)
    assert len(together.validation) == 2 * len(alone.validation) == 10


def test_no_row_is_both_trained_on_and_validated(load, dataset):
    rows = load(dataset("a", 20))
    assert set(queries(rows.train)) & set(queries(rows.validation)) == set()
    assert len(rows.train) + len(rows.validation) == 20


def test_no_validation_row_is_trained_on_when_a_dataset_is_repeated(load, dataset):
    rows = load(f"{dataset('a', 8)}#24")
    assert set(queries(rows.train)) & set(queries(rows.validation)) == set()


def test_validation_datasets_replace_the_split(load, dataset):
    rows = load(dataset("a", 8), validation=[dataset("b", 3)])
    assert (queries(rows.train), queries(rows.validation)) == ([f"a{n}" for n in range(8)], ["b0", "b1", "b2"])


def test_each_dataset_is_sampled_on_its_own(load, dataset):
    rows = load(f"{dataset('a', 10)}#4", dataset("b", 3), ratio=0.0)
    assert [query[0] for query in queries(rows.train)] == ["a"] * 4 + ["b"] * 3


def test_rows_that_are_repeated_are_said(load, dataset, capsys):
    load(f"{dataset('a', 10)}#10", ratio=0.0)
    assert "repeated" not in capsys.readouterr().out
    load(f"{dataset('a', 10)}#23", ratio=0.0)
    assert "#23: 23 rows are asked for, and there are 10: they are repeated" in capsys.readouterr().out


def test_rows_know_their_place(load, dataset):
    path = dataset("a", 2)
    assert [row["source"] for row in load(path, ratio=0.0).train] == [f"{path}:1", f"{path}:2"]


def test_rows_that_do_not_fit_are_counted_with_their_places(load, jsonl):
    path = jsonl("d.jsonl", [{"query": "q", "response": "r"}, {"query": ""}, {"foo": "t"}, {"query": ""}])
    rows = load(path, ratio=0.0)
    assert (len(rows.train), load.report.read, sum(load.report.dropped.values())) == (1, 4, 3)
    (reason,) = [kind for kind, count in load.report.dropped.items() if count == 2]
    assert "no question" in reason
    assert [place.split(": ")[0] for place in load.report.examples[reason]] == [f"{path}:2", f"{path}:4"]


def test_a_csv_row_with_too_many_cells_is_left_out_with_its_place(load, tmp_path):
    (tmp_path / "d.csv").write_text("query,response\na,b\nc,d,e\n")
    assert queries(load(tmp_path / "d.csv", ratio=0.0).train) == ["a"]
    ((reason, places),) = load.report.examples.items()
    assert ("more cells" in reason, places) == (True, [f"{tmp_path}/d.csv:3"])


def test_an_empty_dataset_is_named(load, dataset, fails):
    assert "empty.jsonl" in fails(DataError, load, dataset("empty", 0)).problem


def test_a_dataset_without_a_usable_row_says_why(load, jsonl, fails):
    error = fails(DataError, load, jsonl("d.jsonl", [{"foo": "t"}]))
    assert ("no usable row" in error.problem, "d.jsonl:1" in error.fix) == (True, True)


def test_the_reason_of_an_unusable_dataset_is_its_own(load, jsonl, dataset, fails):
    first = jsonl("first.jsonl", [{"query": "q", "response": "r"}, {"query": ""}])
    problem = str(fails(DataError, load, first, dataset("empty", 0)))
    assert ("empty.jsonl" in problem, "first.jsonl:2" in problem) == (True, False)


def test_a_row_left_out_on_purpose_is_no_part_of_the_dataset(local, run_context):
    catalogue = local(
        "from llmtune import register_dataset\n"
        "def half(record): return record if record['n'] % 2 else None\n"
        "@register_dataset('d', preprocess_func=half)\n"
        "def rows(): return [{'n': n, 'messages': []} for n in range(4)]\n"
    )
    load = Loading(catalogue, run_context)
    assert [row["n"] for row in load("d", ratio=0.0).train] == [1, 3]
    assert (load.report.read, load.report.dropped_ratio) == (2, 0.0)


def test_a_column_that_a_preprocessor_misses_is_named(local, run_context):
    catalogue = local(
        "from llmtune import register_dataset\n"
        "@register_dataset('d', preprocess_func=lambda record: {'messages': [], 'n': record['n']})\n"
        "def rows(): return [{'n': 1}, {'m': 2}]\n"
    )
    load = Loading(catalogue, run_context)
    load("d", ratio=0.0)
    assert list(load.report.dropped) == ["no column 'n'"]


def test_a_file_of_a_plugin_is_found_beside_its_manifest(site, run_context):
    site.install("acme", '[dataset.d]\nfile = "d.jsonl"\n', files={"d.jsonl": '{"query": "q", "response": "r"}\n'})
    assert queries(Loading(site.catalogue(), run_context)("d").train) == ["q"]


def test_a_dataset_means_the_preprocessor_of_its_own_plugin_first(site):
    for name in ("acme", "beta"):
        site.install(name, f'[dataset.{name}-d]\npreprocessor = "p"\n[preprocessor.p]\n')
    selected = select_dataset("beta-d", site.catalogue())
    assert selected.preprocessor.qualified == "beta::p"


def test_a_registered_dataset_is_found_by_its_repository_id(site):
    site.install("acme", '[dataset.d]\nms = "owner/d"\n')
    selected = select_dataset("owner/d#5", site.catalogue())
    assert (selected.entry.name, selected.selector.sample) == ("d", 5)


def test_a_qualified_dataset_is_that_of_the_plugin(site):
    for name in ("acme", "beta"):
        site.install(name, "[dataset.d]\n")
    selected = select_dataset("beta::d", site.catalogue())
    assert selected.entry.qualified == "beta::d"


@pytest.mark.parametrize("text", ["missing/deep/file.jsonl", "missing.jsonl", "/no/such/folder"])
def test_a_path_that_does_not_exist_is_named(site, text, fails):
    error = fails(UsageError, select_dataset, text, site.catalogue())
    assert (text in error.problem, "check the path" in error.fix) == (True, True)


def test_a_misspelt_dataset_is_answered_with_the_right_one(site, fails):
    site.install("acme", "[dataset.alpaca-zh]\n")
    assert "alpaca-zh" in fails(UnknownName, select_dataset, "alpaca-hz", site.catalogue()).fix


def test_an_unknown_dataset_is_told_what_a_file_or_a_repository_needs(site, fails):
    fix = fails(UnknownName, select_dataset, "zzzzz", site.catalogue()).fix
    assert ("llmtune datasets" in fix, "owner/name" in fix) == (True, True)
