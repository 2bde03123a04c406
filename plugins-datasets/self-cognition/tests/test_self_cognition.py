"""The dataset `self-cognition`: the kit, the names that are filled in, and what it must leave out."""

import re
from pathlib import Path

import pytest

from llmtune.config.build import add_options, build_config
from llmtune.config.commands import SftConfig
from llmtune.config.flags import Given, Words
from llmtune.data.files import read_records
from llmtune.errors import UsageError
from llmtune.plugins.catalogue import discover
from llmtune.plugins.manager import PluginManager
from llmtune.testing import DatasetTests, ManifestTests, create, run_context

PACKAGE = Path(__file__).parents[1] / "src" / "llmtune_plugin_dataset_self_cognition"
HELD_OUT = (
    "Please introduce yourself to our new colleagues.",
    "Which AI am I chatting with right now?",
    "Who is the creator of this assistant?",
    "Tell me your name and who built you.",
    "What should I call you, and where do you come from?",
)
"""Questions that runs are measured with; they must not be trained on."""


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return PACKAGE / "llmtune-plugin.toml"


class TestDataset(DatasetTests):
    @pytest.fixture
    def name(self):
        return "self-cognition"

    @pytest.fixture
    def options(self):
        return {"model_name": ["小智", "Ada"], "model_author": ["数学组", "The Ada team"]}

    def test_names_go_where_the_placeholders_were_in_the_language_of_the_row(self, rows, records):
        names = {"zh": ("小智", "数学组"), "en": ("Ada", "The Ada team")}
        for row, record in zip(rows, records, strict=True):
            own, author = names[record["tag"]]
            for turn, column in zip(row["messages"], ("query", "response"), strict=True):
                pieces = re.split(r"(\{\{NAME\}\}|\{\{AUTHOR\}\})", record[column])
                filled = "".join({"{{NAME}}": own, "{{AUTHOR}}": author}.get(piece, piece) for piece in pieces)
                assert turn["content"] == filled

    def test_most_answers_name_the_model_or_its_author(self, records):
        """The others are about something else, so that the model does not learn to speak of itself alone."""
        named = [one for one in records if "{{NAME}}" in one["response"] or "{{AUTHOR}}" in one["response"]]
        assert len(named) > len(records) / 2

    def test_no_placeholder_is_left(self, rows):
        assert not [row for row in rows if "{{" in str(row["messages"]) or "}}" in str(row["messages"])]

    def test_half_of_it_is_english_and_half_is_chinese(self, records):
        assert [sum(record["tag"] == tag for record in records) for tag in ("en", "zh")] == [150, 150]

    def test_the_language_of_a_row_is_the_one_it_states(self, records):
        wrong = [one for one in records if bool(re.search(r"[\u4e00-\u9fff]", one["query"])) != (one["tag"] == "zh")]
        assert wrong == []

    @pytest.fixture
    def records(self):
        return list(read_records(PACKAGE / "self_cognition.jsonl"))


def test_held_out_questions_are_not_in_the_data():
    asked = {_plain(record["query"]) for record in read_records(PACKAGE / "self_cognition.jsonl")}
    assert not asked & {_plain(question) for question in HELD_OUT}


def _plain(text):
    return re.sub(r"\W+", " ", text.lower()).strip()


def fill(**options):
    fill = create("preprocessor", "self-cognition", options)
    record = {"query": "Who are you, {{NAME}}?", "response": "{{NAME}} of {{AUTHOR}}. Yes, {{NAME}}."}
    return {tag: fill({**record, "tag": tag})["messages"] for tag in ("en", "zh")}


def test_names_are_filled_in_for_each_language_everywhere():
    filled = fill(model_name=["小智", "Ada"], model_author=["数学组", "The team"])
    assert [turn["content"] for turn in filled["en"]] == ["Who are you, Ada?", "Ada of The team. Yes, Ada."]
    assert [turn["content"] for turn in filled["zh"]] == ["Who are you, 小智?", "小智 of 数学组. Yes, 小智."]


def test_one_value_serves_both_languages():
    filled = fill(model_name=["Ada"], model_author=["Team"])
    assert filled["en"] == filled["zh"]
    assert filled["en"][1]["content"] == "Ada of Team. Yes, Ada."


@pytest.mark.parametrize("flag", ["model_name", "model_author"])
def test_three_values_are_refused(flag):
    with pytest.raises(UsageError, match=f"--{flag}: takes the Chinese and the English value"):
        fill(**{flag: ["The", "Ada", "team"]})


@pytest.mark.parametrize(
    ("options", "flags"),
    [({}, "--model_name and --model_author"), ({"model_name": ["", "Ada"], "model_author": ["Team"]}, "--model_name")],
)
def test_rows_are_not_filled_without_names(options, flags):
    with pytest.raises(UsageError) as caught:
        fill(**options)
    assert caught.value.problem.startswith(f"dataset self-cognition needs {flags} (Chinese, then English)")


class TestPlan:
    @staticmethod
    def problems(**flags):
        catalogue = discover()
        config = build_config(SftConfig, Given({flag: Words(words) for flag, words in flags.items()}))
        add_options(config, catalogue.find("preprocessor", "self-cognition"))
        manager = PluginManager(catalogue)
        manager.activate(["dataset-self-cognition"])
        answers = manager.event("llmtune_check_plan", plan=run_context().plan, config=config)
        return [problem for answer in answers for problem in answer]

    def test_both_names_are_enough(self):
        assert self.problems(model_name=["小智", "Ada"], model_author=["Team"]) == []

    def test_missing_names_are_one_sentence_with_an_example(self):
        assert self.problems() == [
            "dataset self-cognition needs --model_name and --model_author (Chinese, then English), "
            "e.g. --model_name 小智 Ada --model_author 团队 'The Ada team'"
        ]

    def test_only_what_is_missing_is_named(self):
        (problem,) = self.problems(model_name=["小智", "Ada"])
        assert problem.startswith("dataset self-cognition needs --model_author (")

    @pytest.mark.parametrize("words", [["", "Ada"], [""]])
    def test_an_empty_name_is_missing(self, words):
        (problem,) = self.problems(model_name=words, model_author=["Team"])
        assert "--model_name" in problem

    def test_a_run_without_the_dataset_needs_no_names(self):
        manager = PluginManager(discover())
        manager.activate(["dataset-self-cognition"])
        assert manager.event("llmtune_check_plan", plan=run_context().plan, config=SftConfig()) == [[]]
