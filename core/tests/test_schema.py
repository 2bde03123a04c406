import json

import pytest

from llmtune.config.aliases import RENAMED, SELECTORS, aliases
from llmtune.config.commands import COMMANDS
from llmtune.config.invocation import InvocationSection
from llmtune.config.schema import json_schema
from llmtune.config.source import plugin_flags, section_flags
from llmtune.errors import UsageError
from llmtune.plugins.catalogue import discover

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def accepts(prop, value):
    """Whether a property of the schema takes a value: its type, choices and bounds."""
    if "anyOf" in prop:
        return any(accepts(one, value) for one in prop["anyOf"])
    if "enum" in prop:
        return value in prop["enum"]
    fits = isinstance(value, TYPES[prop["type"]]) and (prop["type"] == "boolean" or not isinstance(value, bool))
    return fits and value_in_bounds(prop, value) and all(accepts(prop["items"], item) for item in items(prop, value))


def items(prop, value):
    return value if prop["type"] == "array" else []


def value_in_bounds(prop, value):
    low, high = prop.get("minimum", float("-inf")), prop.get("maximum", float("inf"))
    return not isinstance(value, int | float) or low <= value <= high


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_schema_has_every_flag_and_accepts_the_defaults(command):
    catalogue = discover()
    schema = json_schema(command, catalogue)
    flags = {*section_flags(command), *(flag for flag, _ in plugin_flags(command, catalogue))}
    flags -= set(InvocationSection.model_fields)  # of the call, not of the run
    assert set(schema["properties"]) == flags | set(aliases(flags))
    defaults = COMMANDS[command]().flat()
    assert [flag for flag, value in defaults.items() if not accepts(schema["properties"][flag], value)] == []
    assert [flag for flag, prop in schema["properties"].items() if not prop.get("description")] == []


def test_the_defaults_in_the_schema_are_those_of_the_command():
    properties = json_schema("infer", discover())["properties"]
    defaults = COMMANDS["infer"]().flat()
    assert {flag: properties[flag].get("default") for flag in defaults} == defaults


def test_the_schema_refuses_other_keys_and_is_plain_json():
    schema = json_schema("sft", discover())
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert "$ref" not in json.dumps(schema)


def test_a_flag_says_which_section_it_belongs_to():
    assert json_schema("sft", discover())["properties"]["seed"]["x-section"] == "Training"


def test_a_plugin_whose_options_are_broken_is_left_out(site):
    site.install("acme", '[tuner.t]\noptions = "llmtune_plugin_acme.options:Options"\n')
    properties = json_schema("sft", site.catalogue())["properties"]
    assert set(properties) - {*RENAMED, *SELECTORS} == set(section_flags("sft")) - set(InvocationSection.model_fields)


def test_an_old_name_takes_what_the_new_one_takes_and_says_so():
    properties = json_schema("sft", discover())["properties"]
    old, new = properties["lora_dropout_p"], properties["lora_dropout"]
    assert (old["deprecated"], old["description"]) == (True, "Old name; write lora_dropout.")
    assert {key: old[key] for key in ("type", "minimum")} == {key: new[key] for key in ("type", "minimum")}
    assert "deprecated" not in new


def test_a_command_without_a_configuration_is_answered_with_the_closest(fails):
    error = fails(UsageError, json_schema, "stf", discover())
    assert ("'stf'" in error.problem, error.fix) == (True, "did you mean sft?")
