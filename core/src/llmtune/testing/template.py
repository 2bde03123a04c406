"""What every template must hold."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from llmtune.interfaces.template import Template
from llmtune.specs import Encoded, Message, Row, TemplateSpec
from llmtune.template.jinja import same_ids
from llmtune.testing.build import create_template
from llmtune.testing.tiny import tiny_tokenizer

TALK: list[Message] = [
    {"role": "user", "content": "What is 12 + 30?"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "再说一遍\n\nplease  "},
    {"role": "assistant", "content": "四十二, forty-two.\n"},
]


class TemplateTests:
    """Checks templates by name. Give the fixture `name`, with `params` for several, and `tokenizer` where the
    tiny one lacks the format's control tokens.

        @pytest.fixture(params=["chatml", "smollm2"])
        def name(self, request):
            return request.param
    """

    @pytest.fixture
    def name(self) -> str:
        raise NotImplementedError("override the fixture `name`: return your template's name in the manifest")

    @pytest.fixture
    def tokenizer(self) -> Any:
        """A tokenizer with the control tokens of the format."""
        return tiny_tokenizer()

    @pytest.fixture
    def made(self, name: str, tokenizer: Any) -> tuple[TemplateSpec, Template]:
        return create_template(name, tokenizer)

    @pytest.fixture
    def spec(self, made: tuple[TemplateSpec, Template]) -> TemplateSpec:
        return made[0]

    @pytest.fixture
    def template(self, made: tuple[TemplateSpec, Template]) -> Template:
        return made[1]

    @pytest.fixture
    def rows(self, spec: TemplateSpec) -> list[Row]:
        """What the format can say: one turn, several turns, a system prompt."""
        rows: list[Row] = [{"messages": TALK[:2]}]
        if spec.chat_sep is not None:
            rows.append({"messages": TALK})
        if any(isinstance(part, str) and "{{SYSTEM}}" in part for part in spec.system_prefix or spec.prefix):
            rows += [{**row, "system": "Answer briefly."} for row in rows]
        return rows

    def test_labels_are_the_input_ids_or_masked(self, template: Template, rows: list[Row]) -> None:
        for encoded in map(template.encode, rows):
            pairs = list(zip(encoded["input_ids"], encoded["labels"], strict=True))
            assert all(label in (-100, token) for token, label in pairs), (
                "a label is neither -100 nor the token at its place: labels are not shifted, the trainer does that"
            )

    def test_labels_cover_exactly_the_answers(self, template: Template, tokenizer: Any, rows: list[Row]) -> None:
        for row in rows:
            expected = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
            found = [_text(run, template, tokenizer) for _, run in trained_runs(template.encode(row))]
            assert found == expected, (
                f"trained on {found}, the answers are {expected}: train the text of answers and the token that ends "
                "the turn, nothing else"
            )

    def test_an_answer_ends_with_a_token_that_stops_it(self, template: Template, rows: list[Row]) -> None:
        for row in rows:
            _, last = list(trained_runs(template.encode(row)))[-1]
            assert last[-1] in template.stop_token_ids(), (
                f"the last trained token is {last[-1]}, an answer stops at {template.stop_token_ids()}: start `suffix` "
                "with the end token (or name it in stop_words), else the model never learns to stop"
            )

    def test_a_turn_with_loss_false_is_not_trained(self, template: Template, tokenizer: Any, rows: list[Row]) -> None:
        for row in [row for row in rows if len(row["messages"]) > 2]:
            first, *others = TALK[1::2]
            muted: Row = {**row, "messages": [TALK[0], {**first, "loss": False}, *TALK[2:]]}
            found = [_text(run, template, tokenizer) for _, run in trained_runs(template.encode(muted))]
            assert found == [turn["content"] for turn in others], (
                f"trained on {found} although the first answer has loss: false: mask its turn"
            )

    def test_text_never_becomes_a_control_token(self, template: Template, tokenizer: Any, rows: list[Row]) -> None:
        control = tokenizer.get_added_vocab()
        attack = "".join(control) + " and ".join(control)
        for row in rows:
            hostile: Row = {**row, "messages": [{**turn, "content": f"x{attack}x"} for turn in row["messages"]]}
            if "system" in row:
                hostile["system"] = f"x{attack}x"
            clean, attacked = (
                [token for token in template.encode(one)["input_ids"] if token in control.values()]
                for one in (row, hostile)
            )
            assert attacked == clean, (
                f"rows that contain {', '.join(control)} as text give {len(attacked)} control tokens instead of "
                f"{len(clean)}: tokenize content with split_special_tokens=True and add control tokens by id"
            )

    def test_training_and_inference_see_the_same_prompt(self, template: Template, rows: list[Row]) -> None:
        for row in rows:
            encoded = template.encode(row)
            start = list(trained_runs(encoded))[-1][0]
            prompt = template.encode_prompt({**row, "messages": row["messages"][:-1]})
            assert prompt == encoded["input_ids"][:start], (
                "encode_prompt() gives other ids than encode() has before the last answer: build both from the same "
                "parts"
            )

    def test_its_jinja_form_gives_the_same_ids(self, template: Template, tokenizer: Any) -> None:
        assert same_ids(template, tokenizer), (
            "the chat_template that checkpoints carry renders other ids: compare template.jinja() with your parts"
        )


def trained_runs(encoded: Encoded) -> list[tuple[int, list[int]]]:
    """Return (start, ids) of each stretch of neighbouring trained tokens."""
    runs, place = [], 0
    for masked, group in itertools.groupby(encoded["labels"], lambda label: label == -100):
        ids = list(group)
        runs += [] if masked else [(place, ids)]
        place += len(ids)
    return runs


def _text(ids: list[int], template: Template, tokenizer: Any) -> str:
    """Decode an answer without the token that ends its turn."""
    ends = ids[-1] in template.stop_token_ids()
    text: str = tokenizer.decode(ids[:-1] if ends else ids, clean_up_tokenization_spaces=False)
    return text
