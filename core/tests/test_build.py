from typing import Annotated, Literal

import pytest
from pydantic import Field

from llmtune.config.build import add_options, build_config, make_section, options_class, replaced
from llmtune.config.commands import COMMANDS, InferConfig, SftConfig
from llmtune.config.flags import Given, Words
from llmtune.config.section import Section
from llmtune.errors import PluginFailed, UsageError


class Every(Section):
    """One field of every kind"""

    text: str = "t"
    number: int = 0
    share: float = 0.0
    switch: bool = False
    maybe_text: str | None = None
    maybe_switch: bool | None = None
    choice: Literal["a", "b"] = "a"
    words: list[str] = Field([])
    numbers: Annotated[list[int], Field(max_length=2)] = Field([])
    mapping: dict[str, int] = Field({})
    maybe_mapping: dict[str, int] | None = None


@pytest.mark.parametrize(
    ("flag", "words", "value"),
    [
        ("text", ["some text"], "some text"),
        ("text", ["None"], "None"),
        ("number", ["-3"], -3),
        ("share", ["1e-4"], 1e-4),
        ("switch", [], True),
        ("switch", ["true"], True),
        ("switch", ["False"], False),
        ("maybe_switch", [], True),
        ("maybe_switch", ["null"], None),
        ("maybe_text", ["None"], None),
        ("maybe_text", ["none"], None),
        ("maybe_text", ["x"], "x"),
        ("choice", ["b"], "b"),
        ("words", ["a", "b"], ["a", "b"]),
        ("words", [], []),
        ("numbers", ["1", "2"], [1, 2]),
        ("mapping", ['{"a": 1}'], {"a": 1}),
        ("maybe_mapping", ["None"], None),
        ("maybe_mapping", ['{"a": 1}'], {"a": 1}),
    ],
)
def test_words_become_what_the_field_takes(flag, words, value):
    section = make_section(Every, {flag: Words(words)})
    assert getattr(section, flag) == value


@pytest.mark.parametrize("value", [{"a": 1}, None])
def test_a_value_of_a_run_file_is_typed_already(value):
    assert make_section(Every, {"maybe_mapping": value}).maybe_mapping == value


@pytest.mark.parametrize(
    ("flag", "words", "named"),
    [
        ("number", ["x"], "'x'"),
        ("number", [], "found none"),
        ("number", ["1", "2"], "'1', '2'"),
        ("choice", ["c"], "'c'"),
        ("mapping", ["{a: 1}"], "takes a JSON mapping"),
        ("switch", ["maybe"], "'maybe'"),
    ],
)
def test_a_wrong_value_is_named_with_its_flag_and_what_was_found(flag, words, named, fails):
    error = fails(UsageError, lambda: make_section(Every, {flag: Words(words)}))
    assert (f"--{flag}" in error.problem, named in error.problem) == (True, True)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": Words(["0"]), "max_length": Words(["x"]), "learning_rate": -1.0},
        {"batch_size": Words(["0"]), "save_steps": Words(["x"])},
        {"batch_size": Words(["1", "2"]), "save_steps": Words(["1", "2"])},
        {"batch_size": Words(["1", "2"]), "save_steps": Words(["x"])},
    ],
    ids=["over sections", "in a section", "too many words", "both"],
)
def test_all_wrong_flags_are_reported_together(values, fails):
    problem = fails(UsageError, build_config, SftConfig, Given(values)).problem
    assert [flag for flag in values if f"--{flag}" not in problem] == []


@pytest.mark.parametrize(
    ("words", "names"),
    [(["a", "b"], ["a", "b"]), (["a,b", "c"], ["a", "b", "c"]), (["a,"], ["a"]), ([], [])],
)
def test_datasets_are_separated_by_spaces_and_commas(words, names):
    assert build_config(SftConfig, Given({"dataset": Words(words)})).data.dataset == names


@pytest.mark.parametrize("value", ["a,b", ["a", "b"]])
def test_datasets_of_a_run_file_are_a_list_or_one_text(value):
    assert build_config(SftConfig, Given({"dataset": value})).data.dataset == ["a", "b"]


def test_a_command_keeps_its_own_defaults_beside_given_values():
    config = build_config(InferConfig, Given({"system": Words(["Be kind."])}))
    assert (config.template.max_length, config.template.system) == (InferConfig().template.max_length, "Be kind.")


def test_given_tells_what_the_user_set_from_what_is_a_default():
    config = build_config(SftConfig, Given({"seed": Words(["42"])}))
    assert (config.given("seed"), config.given("batch_size")) == (True, False)


def test_a_resolved_value_is_replaced_checked_and_everything_else_kept(site, fails):
    config = build_config(SftConfig, Given({"seed": Words(["7"])}))
    changed = replaced(config, "saving", save_steps=10)
    assert (changed.saving.save_steps, changed.training.seed, changed.given("seed")) == (10, 7, True)
    assert config.saving.save_steps is None
    assert "--save_steps" in fails(UsageError, replaced, config, "saving", save_steps=0).problem


OPTIONS = """
from pydantic import Field
from llmtune.api import Section

class Options(Section):
    "Acme"
    acme_rank: int = Field(8, ge=1)
"""


@pytest.fixture
def tuner(site):
    def install(options=OPTIONS):
        manifest = '[tuner.t]\noptions = "llmtune_plugin_acme.options:Options"\n'
        site.install("acme", manifest, files={"options.py": options})
        return site.catalogue().find("tuner", "t")

    return install


def test_options_of_a_plugin_are_kept_on_the_config_and_in_its_flat_form(tuner):
    config = build_config(SftConfig, Given({"acme_rank": Words(["16"]), "seed": Words(["1"])}))
    add_options(config, tuner())
    assert config.options("tuner", "t").acme_rank == 16
    assert config.flat()["acme_rank"] == 16
    assert replaced(config, "training", seed=1).options("tuner", "t").acme_rank == 16
    assert SftConfig().options("tuner", "t") is None


def test_a_wrong_option_of_a_plugin_is_named(tuner, fails):
    config = build_config(SftConfig, Given({"acme_rank": Words(["0"])}))
    assert "--acme_rank" in fails(UsageError, add_options, config, tuner()).problem


def test_an_entry_without_options_adds_none(site):
    site.install("acme", "[tuner.t]\n")
    config = build_config(SftConfig, Given({"seed": Words(["1"])}))
    add_options(config, site.catalogue().find("tuner", "t"))
    assert config.options("tuner", "t") is None


@pytest.mark.parametrize("options", ["import no_such_module_anywhere", "class Other: ..."])
def test_options_that_fail_to_import_name_their_plugin_and_the_doctor(tuner, options, fails):
    error = fails(PluginFailed, options_class, tuner(options))
    assert "acme (llmtune-plugin-acme 1.0)" in error.problem
    assert error.fix == "llmtune plugins doctor acme"


@pytest.mark.parametrize("config_class", list(COMMANDS.values()), ids=list(COMMANDS))
def test_every_flag_has_a_sentence_of_help_and_a_valid_default(config_class):
    config = build_config(config_class, Given())
    for name in config_class.model_fields:
        for flag, field in type(getattr(config, name)).model_fields.items():
            assert field.description, flag


@pytest.mark.parametrize(("words", "value"), [(["None", "Ada"], [None, "Ada"]), (["None"], [None]), ([], [])])
def test_none_among_words_is_none_where_the_list_may_hold_it(words, value):
    class Names(Section):
        """Names"""

        names: list[str | None] = Field([])
        plain: list[str] = Field([])

    assert make_section(Names, {"names": Words(words)}).names == value
    assert make_section(Names, {"plain": Words(words)}).plain == words


@pytest.mark.parametrize("word", ['{"a":' * 5000, '{"a": ' + "9" * 5000 + "}"], ids=["depth", "digits"])
def test_json_that_python_cannot_read_is_named(word, fails):
    assert (
        "--mapping takes a JSON mapping" in fails(UsageError, make_section, Every, {"mapping": Words([word])}).problem
    )


@pytest.mark.parametrize("path", ["no/such/file.py", "\ud800", "\x00", "x" * 300, "~nobody-of-this-name/x.py"])
def test_a_local_file_that_is_not_there_is_named(path, fails):
    problem = fails(UsageError, build_config, SftConfig, Given({"custom_register_path": Words([path])})).problem
    assert ("--custom_register_path" in problem, "no such file or folder" in problem) == (True, True)
