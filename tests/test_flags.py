"""Every flag of SWIFT is there: it parses, its default is the documented one, a wrong choice is refused."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from configuring import as_words, called, configured, installed, owners

from llmtune.cli.help import help_lines
from llmtune.config.aliases import RENAMED, SELECTORS
from llmtune.config.build import add_options
from llmtune.config.source import panels
from llmtune.errors import Problems, UsageError

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "flags.json").read_text(encoding="utf-8"))
INHERITED = {
    **dict.fromkeys(("pt", "rlhf"), "sft"),
    **dict.fromkeys(("merge-lora", "export", "eval", "deploy", "app-ui"), "infer"),
}
"""Command -> the command whose flags it has too, as SWIFT's reference says."""

DIFFERENT: dict[str, tuple[Any, str]] = {
    "beta": (None, "the text states the rule for None; the value is recorded with the run"),
    "custom_register_path": ([], "repeatable, so that several files can be registered"),
    "eval_dataset": ([], "None means none was named, which is an empty list"),
    "loss_type": (None, "the text states the rule for dpo; kto and simpo have others"),
    "ollama_output_dir": (None, "the text states the rule for None"),
    "owned_by": ("llmtune", "the owner that a server names is llmtune"),
    "tools_prompt": ("AUTO", "the form of tools that the template's own models know"),
    "vera_projection_prng_key": (0, "True is a slip of the text: a seed is a number, as the code has it"),
}
"""Flag -> (our default, why it is not the documented one)."""


def facts_of(command: str, seed: str = "seed_2024") -> dict[str, Any]:
    """Return flag -> fact: documented ones, those in code alone, and inherited ones."""
    inherited = facts_of(INHERITED[command]) if command in INHERITED else {}
    return {**inherited, **FACTS[seed].get(f"{command}__code_only", {}), **FACTS[seed].get(command, {})}


COMMANDS = ("sft", "pt", "rlhf", "infer", "merge-lora", "export", "eval", "deploy", "app-ui", "web-ui")
FLAGS = [(command, flag) for command in COMMANDS for flag in facts_of(command)]


def literal(code: str) -> Any:
    """Return the value of a default as the dataclass states it; `list` is the factory of an empty one."""
    return [] if code == "list" else ast.literal_eval(code)


def documented(flag: str, fact: Any) -> Any:
    """Return the default of 2024: what the text says, the code where the text is no value."""
    if flag in DIFFERENT:
        return DIFFERENT[flag][0]
    if isinstance(fact, str):
        return literal(fact)
    code = literal(fact["code"]["default"])
    text = fact["default"].split(" -> ")[0].split(" (")[0].strip()  # without the rule for None, without notes
    if text.startswith(("(code", "<")):
        return code
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    return [value] if isinstance(code, list) and not isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("None -> seed", "None", None),
        ("None (= transformers)", "None", None),
        ("[]", "list", []),
        ("['DEFAULT']", "['DEFAULT']", ["DEFAULT"]),
        ("ALL", "['ALL']", ["ALL"]),
        ("4 (code)", "4", 4),
        (" (code)", "''", ""),
        ("(code: dpo)", "'dpo'", "dpo"),
        ("0.", "0.0", 0.0),
        ("1e-8", "1e-08", 1e-8),
        ("0.01", "0.1", 0.01),
        ("true", "'true'", "true"),
        ("update files", "'update files'", "update files"),
        ("<required>", "None", None),
        ("True", "None", True),
    ],
)
def test_the_text_of_a_default_is_understood(text: str, code: str, value: Any) -> None:
    found = documented("-", {"default": text, "code": {"default": code}})
    assert (found, type(found)) == (value, type(value))


def read_back(command: str, flag: str, *words: str) -> Any:
    """Return the value of a flag from the words that a user would write; everything wrong is raised."""
    config = configured(command, *words)
    Problems(config.problems).raise_any()
    for entry in owners(flag):
        add_options(config, entry)
    return config.get(flag, "absent")


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=map(" ".join, FLAGS))
def test_a_flag_parses_with_its_default_which_is_the_documented_one(command: str, flag: str) -> None:
    expected = documented(flag, facts_of(command)[flag])
    today = RENAMED.get(flag) or SELECTORS.get(flag, (flag,))[0]
    without = read_back(command, today)
    assert read_back(command, today, f"--{flag}", *as_words(expected)) == without
    if today == flag:
        assert (without, type(without)) == (expected, type(without))
        assert isinstance(without, bool) == isinstance(expected, bool)


def test_only_flags_that_exist_are_said_to_differ() -> None:
    assert {flag for flag in DIFFERENT if flag not in {one for _, one in FLAGS}} == set()


def choices(fact: Any) -> list[str]:
    """Return every choice of the text and of the code as a word; placeholders are left out."""
    if isinstance(fact, str):
        return []
    kind = fact["code"]["type"].removeprefix("Optional[")
    found = (
        [str(one) for one in ast.literal_eval(kind.partition("[")[2].partition("]")[0] + ",")]
        if "Literal" in kind
        else []
    )
    for text in fact.get("choices", []):
        if re.fullmatch(r"(hqq|bnb|awq|gptq) [\d/]+", text):
            found += text.split()[1].split("/")
        elif not text.startswith(("<", "(")):
            found.append(text.replace("[n]", "2"))
    return list(dict.fromkeys(found))


CHOICES = [(command, flag, one) for command, flag in FLAGS for one in choices(facts_of(command)[flag])]


NEEDED = {
    "additional_trainable_parameters": ("--sft_type", "full"),
    "freeze_parameters": ("--sft_type", "full"),
    "quant_method": ("--quantization_bit", "4"),
    "quantization_bit": ("--quant_method", "bnb"),
    "rope_scaling": ("--max_length", "4096"),
}
"""What else a run must say for it to look at a flag."""


def use(command: str, flag: str, word: str) -> str:
    """Give a flag with what it needs and return the configuration as a run file."""
    needed = () if (flag, word) == ("quantization_bit", "0") else NEEDED.get(flag, ())
    return called(command, f"--{flag}", word, *needed, "--print_config")


@pytest.mark.parametrize(("command", "flag", "choice"), CHOICES, ids=map(" ".join, CHOICES))
def test_every_documented_choice_is_taken_or_not_available_yet(command: str, flag: str, choice: str) -> None:
    shown = shown_or_problem(command, flag, choice)
    written = rf"{flag}: .*stage\W+{choice[-1]}" if flag == "deepspeed" else rf"^{flag}: \W*{re.escape(choice)}\b"
    taken = re.search(written, shown, re.MULTILINE | re.DOTALL)  # a configuration of DeepSpeed is written whole
    assert taken or re.fullmatch(rf"--{flag}( {choice})? is not available yet(: .+)?", shown)


def shown_or_problem(command: str, flag: str, choice: str) -> str:
    try:
        return use(command, flag, choice)
    except UsageError as error:
        return error.problem


def strict_flags() -> Iterator[tuple[str, str]]:
    """Yield (command, flag) of what takes no free text: choices, names of plugins, numbers, true and false."""
    for command in COMMANDS:
        for panel in panels(command, installed()):
            for flag in panel.flags:
                free = {"TEXT", "LIST", "JSON"} & set(flag.takes.split("|")) and not flag.choices
                named = flag.names in ("tuner", "trainer", "engine", "quantizer")
                if flag.name in facts_of(command) and (named or not free):
                    yield command, flag.name


STRICT = sorted(set(strict_flags()))


def test_every_flag_that_swift_gives_choices_takes_no_free_text() -> None:
    facts = ((command, flag, facts_of(command)[flag]) for command, flag in FLAGS)
    types = {(command, flag): fact["code"]["type"] for command, flag, fact in facts if not isinstance(fact, str)}
    # A tools prompt may be anybody's plugin: the name is looked up with the template, when the run is prepared.
    old = {(command, flag) for command, flag in types if flag in SELECTORS or flag == "tools_prompt"}
    strict = re.compile(r"Literal|\b(int|float|bool)\b")
    assert {one for one, kind in types.items() if strict.search(kind)} - set(STRICT) - old == set()


@pytest.mark.parametrize(("command", "flag"), STRICT, ids=map(" ".join, STRICT))
def test_a_wrong_choice_is_refused_and_the_flag_is_named(command: str, flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        use(command, flag, "certainly")
    assert f"--{flag}" in caught.value.problem
    assert "certainly" in caught.value.problem


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_appears_in_the_help(command: str) -> None:
    shown = {match for line in help_lines(command, installed()) for match in re.findall(r"^  --(\w+)  ", line)}
    assert set(facts_of(command)) - shown == set()


# --- the flags of 2023 ----------------------------------------------------------------------------

FLAGS_2023 = [(command, flag) for command in ("sft", "infer") for flag in FACTS["seed_2023"][command]]


@pytest.mark.parametrize(("command", "flag"), FLAGS_2023, ids=map(" ".join, FLAGS_2023))
def test_a_flag_of_2023_parses_and_an_old_name_says_the_new_one(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = documented("-", FACTS["seed_2023"][command][flag])
    problem = ""
    try:
        read_back(command, flag, f"--{flag}", *as_words(value))
    except UsageError as error:
        problem = error.problem
    assert problem in ("", f"--{flag} is not available yet")
    new = RENAMED.get(flag) or SELECTORS.get(flag, ("",))[0]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.startswith(f"warning: --{flag} is deprecated; write --{new}") for line in lines] == [True] * bool(new)
