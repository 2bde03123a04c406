import json

import pytest

from llmtune.data.files import data_files, read_records
from llmtune.data.subsets import read_subsets, subset_files, wanted_subsets
from llmtune.errors import DataError


@pytest.fixture
def repository(tmp_path):
    """Write files that each hold one record, their own path; `page` is the front matter of README.md."""

    def write(*files, page=None):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(json.dumps({"at": name}) + "\n")
        if page is not None:
            (tmp_path / "README.md").write_text(f"---\n{page}\n---\n# A dataset\n")
        return tmp_path

    return write


def found(folder, *wanted):
    return [record["at"] for record in read_subsets(folder, wanted)]


@pytest.mark.parametrize(
    ("files", "wanted", "expected"),
    [
        (["os/train.jsonl", "db/train.jsonl"], ("os", "train"), ["os/train.jsonl"]),
        (["data/os/a-test.jsonl", "data/os/a-train-00.jsonl"], ("os", "train"), ["data/os/a-train-00.jsonl"]),
        (["db.jsonl", "dbpedia.jsonl"], ("db", "train"), ["db.jsonl"]),
        (["db_train.jsonl", "db-test.jsonl"], ("db", "test"), ["db-test.jsonl"]),
        (["train.jsonl", "valid.jsonl"], ("default", "validation"), ["valid.jsonl"]),
        (["b.jsonl", "a.jsonl", "test.jsonl"], ("default", "train"), ["a.jsonl", "b.jsonl"]),
        (["rows_sft.jsonl", "rows_dpo.jsonl"], ("default", "sft"), ["rows_sft.jsonl"]),
        (["a.jsonl", "dataset_infos.json", "configuration.json"], ("default", "train"), ["a.jsonl"]),
        (["retrained.jsonl"], ("default", "train"), ["retrained.jsonl"]),
    ],
)
def test_files_are_found_by_their_names(repository, files, wanted, expected):
    assert found(repository(*files), wanted) == expected


def test_subsets_are_read_in_the_order_they_are_asked_for(repository):
    folder = repository("a/train.jsonl", "b/train.jsonl")
    assert found(folder, ("b", "train"), ["a", "train"]) == ["b/train.jsonl", "a/train.jsonl"]


PAGES = {
    "a path": "- config_name: os\n  data_files: x/1.jsonl",
    "paths": "- config_name: os\n  data_files:\n  - x/1.jsonl",
    "a pattern": "- config_name: os\n  data_files: x/*1*",
    "a list of splits": "- config_name: os\n  data_files:\n  - split: train\n    path: x/1.jsonl\n"
    "  - split: test\n    path: [x/2.jsonl]",
    "a mapping of splits": "- config_name: os\n  data_files: {train: x/1.jsonl, test: x/2.jsonl}",
    "a folder": "- config_name: os\n  data_dir: x\n  data_files: 1.jsonl",
}


@pytest.mark.parametrize("configs", PAGES.values(), ids=PAGES)
def test_the_page_of_the_repository_comes_first(repository, configs):
    folder = repository("x/1.jsonl", "x/2.jsonl", "os/train.jsonl", page=f"configs:\n{configs}")
    assert found(folder, ("os", "train")) == ["x/1.jsonl"]


def test_another_split_of_the_page_is_found(repository):
    folder = repository("x/1.jsonl", "x/2.jsonl", page=f"configs:\n{PAGES['a list of splits']}")
    assert found(folder, ("os", "test")) == ["x/2.jsonl"]


@pytest.mark.parametrize("path", ["../secret.jsonl", "/etc/*.json", "x/../../secret.jsonl"])
def test_a_page_cannot_name_files_outside_of_its_repository(repository, tmp_path, path, fails):
    folder = repository("in/a.jsonl").joinpath("in")
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: os\n  data_files: {path}\n---\n")
    fails(DataError, subset_files, folder, "os", "train")


@pytest.mark.parametrize("page", ["configs: [", "a text", "configs: 3", "configs:\n- config_name: os"])
def test_a_page_that_says_nothing_useful_leaves_the_names(repository, page):
    assert found(repository("os/train.jsonl", page=page), ("os", "train")) == ["os/train.jsonl"]


def test_a_missing_subset_is_an_error_that_lists_what_there_is(repository, fails):
    error = fails(DataError, subset_files, repository("os/train.jsonl", "db.jsonl"), "kg", "train")
    assert ("'kg'" in error.problem, "'train'" in error.problem) == (True, True)
    assert error.fix == "there is: db.jsonl, os/train.jsonl"


def test_a_missing_split_is_an_error(repository, fails):
    fails(DataError, subset_files, repository("os/train.jsonl"), "os", "test")


def test_a_folder_without_data_says_so(tmp_path, fails):
    assert fails(DataError, subset_files, tmp_path, "os", "test").fix == "there is: no data file"


def test_a_long_list_is_cut(repository, fails):
    folder = repository(*(f"part{number:02}/a.jsonl" for number in range(25)))
    assert fails(DataError, subset_files, folder, "kg", "train").fix.endswith("and 5 more")


def test_modelscopes_own_file_of_subsets_is_followed_and_is_no_data(tmp_path):
    index = {
        "default": {"train": {"meta": "a.jsonl"}},
        "en": {"train": {"meta": "b.jsonl"}, "test": {"meta": "c.jsonl"}},
    }
    (tmp_path / "repo.json").write_text(json.dumps(index))
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    assert [record["text"] for record in read_subsets(tmp_path, [("en", "train"), ("en", "test")])] == ["b", "c"]
    assert wanted_subsets(tmp_path, {}, ()) == ([("default", "train")], [])
    assert [file.name for file in data_files(tmp_path)] == ["a.jsonl", "b.jsonl", "c.jsonl"]


@pytest.mark.parametrize("name", ["sft_data_en.jsonl", "en/train.jsonl", "EN-2024.jsonl"])
def test_a_subset_is_a_word_of_the_name_anywhere(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"text": "x"}')
    (tmp_path / "men.jsonl").write_text('{"text": "no"}')
    assert [record["text"] for record in read_subsets(tmp_path, [("en", "train")])] == ["x"]


def test_a_folder_with_files_for_training_and_testing_is_not_trained_on_whole(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text("{}")
    assert wanted_subsets(tmp_path, {}, ()) == ([("default", "train")], [("default", "validation")])


@pytest.mark.parametrize(("name", "train"), [("a.jsonl", [("default", "train")]), ("test.jsonl", None)])
def test_a_folder_without_training_files_is_read_whole(tmp_path, name, train):
    (tmp_path / name).write_text("{}")
    assert wanted_subsets(tmp_path, {}, ()) == (train, [])


FACTS = {"subsets": [["a", "train"], ["b", "train"]], "val_subsets": [["a", "dev"]]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), (FACTS["subsets"], FACTS["val_subsets"])),
        (("all",), (FACTS["subsets"], FACTS["val_subsets"])),
        (("b",), ([["b", "train"]], [])),
        (("a",), ([["a", "train"]], [["a", "dev"]])),
    ],
)
def test_the_selector_chooses_among_the_subsets_of_the_manifest(tmp_path, names, expected):
    assert wanted_subsets(tmp_path, FACTS, names) == expected


def test_a_subset_that_the_manifest_lacks_is_named(tmp_path, fails):
    error = fails(DataError, wanted_subsets, tmp_path, FACTS, ("c",))
    assert ("'c'" in error.problem, "a, b" in error.fix) == (True, True)


def test_several_declared_subsets_without_a_default_must_be_chosen(tmp_path, fails):
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: x\n  data_files: x.jsonl\n- config_name: y\n  data_files: y.jsonl\n---\n"
    )
    for name in "xy":
        (tmp_path / f"{name}.jsonl").write_text("{}")
    assert "NAME:x/y" in fails(DataError, wanted_subsets, tmp_path, {}, ()).fix
    assert wanted_subsets(tmp_path, {}, ("all",))[0] == [("x", "train"), ("y", "train")]


def test_a_folder_that_is_called_like_a_file_is_read_once(repository):
    folder = repository("train.jsonl/part-0.jsonl", "train.jsonl/part-1.jsonl")
    names = ["train.jsonl/part-0.jsonl", "train.jsonl/part-1.jsonl"]
    assert found(folder, ("default", "train")) == names
    assert [str(path.relative_to(folder)) for path in data_files(folder)] == names


def test_a_second_name_of_a_file_of_the_folder_is_not_read_again(repository):
    folder = repository("part-0.jsonl", "part-1.jsonl")
    (folder / "latest.jsonl").symlink_to("part-1.jsonl")
    assert [path.name for path in data_files(folder)] == ["part-0.jsonl", "part-1.jsonl"]
    assert [path.name for path in data_files(folder / "*.jsonl")] == ["latest.jsonl", "part-0.jsonl"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_datasets_leaves_beside_its_data_is_not_read(tmp_path):
    from datasets import Dataset, load_from_disk

    folder = tmp_path / "saved"
    Dataset.from_list([{"query": str(number), "response": "a"} for number in range(20)]).save_to_disk(folder)
    opened = load_from_disk(folder)
    opened.map(lambda row: {"query": row["query"] + "!"})
    opened.filter(lambda row: int(row["query"]) < 10)
    opened.shuffle(seed=1)
    assert len(list(folder.glob("cache-*.arrow"))) >= 2
    assert [record["query"] for record in read_records(folder)] == [str(number) for number in range(20)]
    (folder / "state.json").unlink()
    assert len(list(read_records(folder))) == 20
