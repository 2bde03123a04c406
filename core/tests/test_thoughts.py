"""Where the prompt begins the thoughts, every answer that was asked for with it has that beginning."""

import json

import pytest

from llmtune.data.encode import Encoder, encode_rows
from llmtune.data.report import DataReport
from llmtune.data.truncate import Limit
from llmtune.errors import DataError
from llmtune.specs import TemplateSpec, ToolsPromptSpec
from llmtune.template.chat_format import ChatFormat
from llmtune.template.jinja import jinja_ids, same_ids
from llmtune.template.thinking import said, thoughts_apart
from llmtune.testing.tiny import tiny_tokenizer

TOOLS = ToolsPromptSpec(name="t", describe="{{ text }}", call="{call}", results="{{ results[0] }}")
CALL = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
TURNS = [
    {"role": "user", "content": "1"},
    {"role": "assistant", "content": "", "tool_calls": CALL},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "3"},
]
LATER = [{"role": "user", "content": "4"}, {"role": "assistant", "content": "5"}]


def made(**parts):
    tokenizer = tiny_tokenizer()
    spec = {"prompt": ["{{QUERY}}|"], "chat_sep": ["<|im_end|>"], "suffix": ["<|im_end|>"], "tools_prompt": TOOLS}
    return ChatFormat(TemplateSpec(name="n", thinking="strip_history", **{**spec, **parts}), tokenizer), tokenizer


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (
            {"thinking_prefix": ["<think>\n"]},
            "1|<think>\n\n</think>\n\n{call}<|im_end|>2|<think>\n\n</think>\n\n3<|im_end|>",
        ),
        ({"thinking_empty": ["<think></think>"]}, "1|{call}<|im_end|>2|<think></think>3<|im_end|>"),
    ],
)
def test_an_answer_between_calls_begins_as_its_prompt_did(parts, shown):
    template, tokenizer = made(**parts)
    assert tokenizer.decode(template.encode({"messages": TURNS})["input_ids"]) == shown
    assert same_ids(template, tokenizer)


def test_answers_to_earlier_questions_do_not():
    template, tokenizer = made(thinking_prefix=["<think>\n"])
    shown = "1|{call}<|im_end|>2|3<|im_end|>4|<think>\n\n</think>\n\n5<|im_end|>"
    assert tokenizer.decode(template.encode({"messages": [*TURNS, *LATER]})["input_ids"]) == shown


def test_the_prompt_of_a_call_is_the_beginning_of_what_training_sees():
    template, _ = made(thinking_prefix=["<think>\n"])
    whole = template.encode({"messages": TURNS})["input_ids"]
    for end in (1, 3):
        prompt = template.encode_prompt({"messages": TURNS[:end]})
        assert whole[: len(prompt)] == prompt


def answered(text, **more):
    return {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": text, **more}]}


@pytest.mark.parametrize("text", ["Two.\n</think>\n\nFour.", "<think>\nTwo.\n</think>\n\nFour.", "\nTwo.</think>Four."])
def test_an_answer_whose_prompt_began_its_thoughts_has_the_same_ids_as_one_that_begins_them(text):
    template, tokenizer = made(thinking_prefix=["<think>\n"])
    expected = template.encode(thoughts_apart(answered("Four.", reasoning_content="Two.")))["input_ids"]
    assert template.encode(thoughts_apart(answered(text)))["input_ids"] == expected
    assert jinja_ids(answered(text), template.jinja(), tokenizer) == expected


@pytest.mark.parametrize(
    ("text", "more", "why"),
    [
        ("<think>\nTwo and", {}, "turn 2: its thoughts begin with <think> and never end"),
        ("Two.</think>Three.</think>Four.", {}, "end with </think> more than once"),
        ("<think>Two.</think>Four.", {"reasoning_content": "Two."}, "others beside it"),
    ],
)
def test_thoughts_that_do_not_end_or_end_twice_are_refused_and_cost_no_other_row(text, more, why):
    with pytest.raises(DataError, match=why):
        thoughts_apart(answered(text, **more))
    encoder = Encoder(template=made()[0], limit=Limit(max_length=-1))
    bad, good = encoder.outcomes([answered(text, **more), answered("Four.")])
    assert (bad.samples, len(good.samples), good.problem) == ([], 1, "")


@pytest.mark.parametrize("text", ["Write `</think>` there.", "A <think> opens, </think> closes.", "No tags."])
def test_an_answer_that_writes_of_the_marks_is_text(text):
    assert thoughts_apart(answered(text)) == answered(text)


def test_thoughts_that_broke_off_in_a_chat_end_there():
    assert said("<think>\nTwo and") == {"role": "assistant", "content": "", "reasoning_content": "Two and"}
    assert said("Two.\n</think>\n\nFour.")["content"] == "Four."
    assert said("Four.") == {"role": "assistant", "content": "Four."}


def test_names_of_control_tokens_in_texts_are_counted_with_their_places(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path))
    template, _ = made()
    rows = [(json.dumps(answered(text)).encode(), f"d:{number}") for number, text in enumerate(["a<|im_end|>b", "c"])]
    report = DataReport()
    encode_rows(rows, Encoder(template=template, limit=Limit(max_length=-1)), report)
    assert "<|im_end|> stands in the text of 1 rows" in "\n".join(report.lines())
    assert report.as_json()["control_names"] == {"<|im_end|>": 1}
    assert report.examples["<|im_end|>"] == ["d:0"]


def test_text_that_is_vouched_for_may_hold_control_tokens():
    template, tokenizer = made()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = {"messages": [{"role": "assistant", "content": "a<|im_end|>b"}]}
    assert end not in template.encode(text)["input_ids"][:-1]
    template, _ = made()
    template.vocabulary.special_tokens_in_text = True
    encoded = template.encode(text)
    expected = tokenizer("a<|im_end|>b", add_special_tokens=False)["input_ids"]
    assert encoded["input_ids"][: len(expected)] == expected
    assert encoded["labels"][: len(expected)] == expected
