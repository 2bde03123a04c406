import json

import pytest

from llmtune.cli.main import main
from llmtune.config.source import OPTION_KINDS, panels
from llmtune.plugins.catalogue import discover


def listed(capsys, *arguments):
    assert main(["flags", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_flag_of_every_command_is_listed(capsys):
    found = listed(capsys)
    expected = {
        (flag.name, command)
        for command in OPTION_KINDS
        for panel in panels(command, discover())
        for flag in panel.flags
    }
    assert {(one["name"], command) for one in found for command in one["commands"]} == expected


def test_pending_lists_what_is_refused_and_names_that_are(capsys):
    found = {one["name"]: one for one in listed(capsys, "--pending")}
    assert found["tp"]["pending"] is True
    assert "aqlm" in found["quant_method"]["pending_names"]
    assert "lora_rank" not in found


def test_a_default_that_differs_between_commands_is_listed_apart(capsys):
    assert {one["default"]: one["commands"][0] for one in listed(capsys) if one["name"] == "eval_steps"} == {
        50: "sft",
        500: "pt",
    }


def test_one_command_alone(capsys):
    assert {tuple(one["commands"]) for one in listed(capsys, "web-ui")} == {("web-ui",)}


def test_the_table_marks_what_is_not_available(capsys):
    assert main(["flags", "sft", "--pending"]) == 0
    out = capsys.readouterr().out
    assert "--tp*" in out
    assert "--lora_rank" not in out


@pytest.mark.parametrize(("name", "hint"), [("sfr", "sft"), ("zzzzzz", "one of sft")])
def test_an_unknown_command_is_wrong_usage(capsys, name, hint):
    assert main(["flags", name]) == 2
    assert hint in capsys.readouterr().err
