"""Whatever stands on the command line or in a run file: it works, or one error says what is wrong with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from configuring import called, installed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmtune.config.aliases import RENAMED, SELECTORS
from llmtune.config.commands import COMMANDS
from llmtune.config.flags import split_flags
from llmtune.errors import CheckpointError, LlmtuneError
from llmtune.pipelines.configure import known_flags

KNOWN = {command: sorted({*known_flags(command, installed())} - {"print_config"}) for command in COMMANDS}
TODAY = {**RENAMED, **{old: new for old, (new, _) in SELECTORS.items()}}
TIMES = float(os.environ.get("FUZZ_TIMES", "1"))
EXAMPLES = settings(max_examples=int(5000 * TIMES), deadline=None, derandomize=True, database=None)

# --- what is tried --------------------------------------------------------------------------------

WORDS = [
    *("true", "false", "None", "none", "null", "yes", "", "AUTO", "lora", "full", "bnb", "awq", "pt", "vllm", "steps"),
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "4",
        "8",
        "0.5",
        "1e-4",
        "1e400",
        "nan",
        "inf",
        "-0",
        "1_000",
        "٣",
        "0x10",
        "99999999999",
    ),
    *("{}", '{"a": 1}', '{"a": [1, null]}', "[1, 2]", "{", '{"a": NaN}', "[" * 99, '{"a":', "a,b", ",", "a=b", "10GB"),
    *("self-cognition#5", "[1:2]", "no/such.yaml", "missing.json", "-x", "-lr", "-", "--", "---", "你好", "é", "\x00"),
    *("\x1b[31m", "\n", "\t", "\udcff", "x" * 300, "'", '"', "%s", "{0}", "*", "~", "/", "../..", "http://x/v1"),
]
# Arguments that are no valid UTF-8 reach Python as lone surrogates.
TEXT = st.text(st.characters(), max_size=6)
VALUES = st.sampled_from(WORDS) | TEXT | st.integers().map(str) | st.floats().map(str)


def misspelt(name: str, number: int) -> str:
    place, letter = number % len(name), ("", "x", "é", "\n", "=", "__")[number % 6]
    return name[:place] + letter + name[place + 1 :]


def names(command: str) -> list[str]:
    """Return real names three times, with dashes, and one misspelt name for every ten real ones."""
    real = KNOWN[command]
    wrong = [misspelt(name, number) for number, name in enumerate(real) if number % 10 == 0]
    return [*real, *real, *real, *(name.replace("_", "-") for name in real), *wrong, "", "1", "é", "a b", "help", "h"]


FLAGS = {command: st.sampled_from(names(command)) for command in COMMANDS}
FORMS: dict[str, Callable[[str, str, str], list[str]]] = {
    "one word": lambda flag, word, _: [f"--{flag}", word],
    "no word": lambda flag, word, _: [f"--{flag}"],
    "two words": lambda flag, word, other: [f"--{flag}", word, other],
    "equals": lambda flag, word, _: [f"--{flag}={word}"],
    "equals and a word": lambda flag, word, other: [f"--{flag}={word}", other],
    "twice": lambda flag, word, other: [f"--{flag}", word, f"--{flag}", other],
    "one dash": lambda flag, word, _: [f"-{flag}", word],
}
SHAPES = st.sampled_from([*["one word"] * 8, "no word", "no word", *FORMS])


def arguments(command: str) -> st.SearchStrategy[tuple[str, list[str]]]:
    group = st.tuples(SHAPES, FLAGS[command], VALUES, st.sampled_from(WORDS))
    words = st.lists(group, max_size=3).map(
        lambda groups: [word for form, *rest in groups for word in FORMS[form](*rest)]
    )
    stray = st.sampled_from([*[()] * 20, ("x",), ("no/such.yaml",), ("",), ("\n",), ("-é",)])
    return st.tuples(st.just(command), st.builds(lambda first, rest: [*first, *rest], stray, words))


TYPED = [
    None,
    True,
    False,
    0,
    1,
    -1,
    4,
    2.5,
    1e-4,
    float("nan"),
    float("inf"),
    10**30,
    b"\xff",
    date(2024, 1, 1),
    {1, 2},
]
LEAVES = st.sampled_from([*TYPED, *WORDS]) | TEXT
NESTED = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=3
)
PASTED = [
    "",
    ": ",
    "\n- a",
    "\t",
    "&a [*a]",
    "!!python/object:os.system",
    "{",
    "'",
    "\x00",
    "2020-99-99",
    "\n",
    "#",
    "? ",
]
CUTS = st.tuples(st.integers(0, 200), st.sampled_from(PASTED))


def files(command: str) -> st.SearchStrategy[tuple[str, str]]:
    """Mostly mappings; now and then one that somebody cut or pasted into, or any text."""
    mapping = st.dictionaries(FLAGS[command], NESTED, max_size=3)
    text = mapping.map(lambda values: yaml.dump(values, allow_unicode=True)) | mapping.map(as_json)
    cut = st.builds(lambda text, cut: text[: cut[0]] + cut[1] + text[cut[0] :], text, CUTS)
    return st.tuples(st.just(command), st.one_of(text, text, text, cut, TEXT))


def as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, default=str)


# Built once: hypothesis checks a strategy each time it is new, which takes longer than a call.
ARGUMENTS = {command: arguments(command) for command in COMMANDS}
FILES = {command: files(command) for command in COMMANDS}

# --- what is accepted -----------------------------------------------------------------------------


def outcome(command: str, *words: str) -> LlmtuneError | None:
    """Call the command; anything but an expected error passes through and fails the test."""
    try:
        called(command, *words, "--print_config")
    except LlmtuneError as error:
        return error
    return None


def accepted(error: LlmtuneError | None, names: Iterable[str]) -> bool:
    """Whether the command worked, or its error has code 2 and names something that was given."""
    if error is None:
        return True
    found = str(error)
    assert error.exit_code == 2, repr(error)
    assert "Traceback" not in found
    return any(name and name in found for name in names)


@EXAMPLES
@given(st.sampled_from(sorted(COMMANDS)).flatmap(ARGUMENTS.__getitem__))
@example(("sft", ["\x00.yaml"]))
@example(("sft", ["\udcff.yaml"]))
@example(("sft", ["a" * 5000 + ".yaml"]))
@example(("infer", ["--ckpt_dir", "\x00"]))
@example(("infer", ["--ckpt_dir", "~nobody-of-this-name/x"]))
@example(("sft", ["--custom_register_path", "\x00"]))
@example(("sft", ["--custom_register_path", "~nobody-of-this-name/x"]))
@example(("sft", ["~nobody-of-this-name/x.yaml"]))
@example(("sft", ["--seed", "9" * 5000]))
@example(("sft", ["--lr_scheduler_kwargs", '{"a": ' + "9" * 5000 + "}"]))
@example(("sft", ["--lr_scheduler_kwargs", '{"a":' * 5000]))
@example(("sft", ["--lr_scheduler_kwargs", '{"\\ud800": 1}', "--system", "\ud800"]))
def test_flags_work_or_the_error_names_one_of_them(given_words: tuple[str, list[str]]) -> None:
    command, words = given_words
    stray, flags = split_flags(words)
    given_names = [*flags, *(TODAY[flag] for flag in flags if flag in TODAY), *stray, *map(repr, stray)]
    for flag in ("ckpt_dir", "custom_register_path"):  # a folder or file that is not there is named itself
        given_names += [str(Path(os.path.expanduser(word))) for word in flags.get(flag, [])]
    given_names += [word for values in flags.values() for word in values if re.fullmatch(r"-[A-Za-z]", word)]
    assert accepted(outcome(command, *words), given_names)


@pytest.fixture(scope="module")
def run_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@EXAMPLES
@given(content=st.sampled_from(sorted(COMMANDS)).flatmap(FILES.__getitem__), suffix=st.sampled_from(["yaml", "json"]))
@example(content=("sft", "seed: " + "9" * 5000), suffix="yaml")
@example(content=("sft", "seed: " + "[" * 1500), suffix="yaml")
@example(content=("sft", "seed: 2020-99-99"), suffix="yaml")
@example(content=("sft", "lr_scheduler_kwargs: &a {b: *a}"), suffix="yaml")
@example(content=("sft", "lr_scheduler_kwargs: {b: !!binary /w==}"), suffix="yaml")
@example(content=("sft", "lr_scheduler_kwargs: {[1]: 2}"), suffix="yaml")
@example(content=("sft", "lr_scheduler_kwargs: {1: 2}"), suffix="yaml")
@example(content=("sft", "? [seed, b]\n: 1\n"), suffix="yaml")
@example(content=("sft", "stop_words: !!set {a, b}"), suffix="yaml")
@example(content=("sft", "seed: &a [&b [*a, *a], *b]"), suffix="yaml")
@example(content=("sft", "seed: !!int ''"), suffix="yaml")
@example(content=("sft", "learning_rate: !!float x"), suffix="yaml")
@example(content=("sft", "a: &a [x]\nseed: *b"), suffix="yaml")
def test_run_files_work_or_the_error_names_a_key_or_the_file(
    run_files: Path, content: tuple[str, str], suffix: str
) -> None:
    command, text = content
    path = run_files / f"run.{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    error = outcome(command, str(path))
    folder = ["checkpoint"] if isinstance(error, CheckpointError) and re.search("ckpt[-_]dir", text) else []
    assert accepted(error, [str(path), *folder, *contradicted(error, text)])


def contradicted(error: LlmtuneError | None, text: str) -> list[str]:
    """Return the flags of the file that an error names without its line, as contradictions do."""
    return [flag for flag in re.findall(r"--(\w+)", str(error)) if flag in text.replace("-", "_")]
