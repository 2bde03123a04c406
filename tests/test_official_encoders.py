"""Our templates against the encoders that Mistral's and Qwen's packages have of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import official_tokenizers as official
import pytest
from official_rows import BORDERS, CHAT

from llmtune.api import Row, Template
from llmtune.template.pieces import Piece, assembled, joined
from llmtune.template.vocabulary import Vocabulary
from llmtune.testing import create_template

ROWS = {**CHAT, **BORDERS}
V1, V2, V3, V7 = (
    "tokenizer.model.v1",
    "mistral_instruct_tokenizer_240216.model.v2",
    "mistral_instruct_tokenizer_240323.model.v3",
    "mistral_instruct_tokenizer_241114.model.v7",
)
TEKKEN = "tekken_240911.json"
MISTRAL: dict[str, tuple[str, Callable[[], Any]]] = {
    "mistral_v1": (V1, partial(official.tokenizer, "mistral_v1")),
    "mistral_v2": (V2, partial(official.mistral, V2)),
    "mistral_v3": (V3, partial(official.mistral, V3)),
    "mistral_2506": (V7, partial(official.mistral, V7)),
    "mistral_nemo": (TEKKEN, partial(official.tokenizer, "tekken")),
}
"""Template -> the vocabulary of mistral-common, and the same as a tokenizer of transformers."""
REFUSED = {"empty answer": "mistral-common takes no answer without text", "empty system": "nor such a system prompt"}


@cache
def made(template: str) -> tuple[Template, Any]:
    tokenizer = MISTRAL[template][1]()
    return create_template(template, tokenizer)[1], tokenizer


def stages(row: Row) -> Iterator[Row]:
    """Yield the conversation, and every beginning of it that an answer follows."""
    yield row
    for number, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            yield {**row, "messages": row["messages"][:number]}


@cache
def encoded_by_mistral(template: str) -> dict[tuple[str, int], list[int]]:
    """Return what mistral-common makes of every row and stage."""
    places = [(name, number) for name, row in usable(template).items() for number, _ in enumerate(stages(row))]
    requests = []
    for name, number in places:
        row = list(stages(ROWS[name]))[number]
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        requests.append({"file": MISTRAL[template][0], "messages": [*system, *row["messages"]]})
    return dict(zip(places, official.encoded_by("mistral", requests), strict=True))


def usable(template: str) -> dict[str, Row]:
    return {name: row for name, row in ROWS.items() if name not in REFUSED}


def without_spaces_behind_answers(row: Row) -> Row:
    """mistral-common takes them away from version 2 on; a row's text is never changed."""
    messages: Any = [
        {**turn, "content": turn["content"].rstrip(" ")} if turn["role"] == "assistant" else turn
        for turn in row["messages"]
    ]
    return {**row, "messages": messages}  # type: ignore[typeddict-item]


@pytest.mark.parametrize("template", MISTRAL)
def test_mistrals_ids_are_those_of_its_own_encoder(template: str) -> None:
    one, tokenizer = made(template)
    for (name, number), expected in encoded_by_mistral(template).items():
        row = list(stages(ROWS[name]))[number]
        row = row if template == "mistral_v1" else without_spaces_behind_answers(row)
        found = one.encode(row)["input_ids"] if number == 0 else one.encode_prompt(row)
        assert found == expected, (
            f"{name}, {number}:\n{tokenizer.convert_ids_to_tokens(found)}\n{tokenizer.convert_ids_to_tokens(expected)}"
        )


# --- SentencePiece and others: text beside control tokens ------------------------------------------

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "a space before every text": partial(official.tokenizer, "mistral_v1"),
    "a space before the first text": partial(official.metaspace, "first"),
    "always a space": partial(official.metaspace, "always"),
    "no space": partial(official.tokenizer, "gemma3"),
    "bytes": partial(official.tokenizer, "deepseek_v3"),
}
TEXTS = [
    "Hi",
    " Hi",
    "  Hi  ",
    "\nHi\n",
    "▁Hi",
    "",
    " ",
    "\n",
    "<b>Hi</b>",
    *(row["messages"][0]["content"] for row in ROWS.values()),
]


@pytest.mark.thorough
@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_beside_control_tokens_has_the_ids_of_the_whole_string(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    vocabulary, end = Vocabulary(tokenizer), tokenizer.eos_token
    for first in TEXTS:
        for second in TEXTS:
            parts = [Piece(first), Piece(control=(tokenizer.eos_token_id,)), Piece(second)]
            (found,) = assembled([joined(parts)], vocabulary)
            assert found["input_ids"] == tokenizer(f"{first}{end}{second}", add_special_tokens=False)["input_ids"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_that_spells_a_control_token_is_the_text_and_nothing_else(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    vocabulary, end = Vocabulary(tokenizer), tokenizer.eos_token
    for before in TEXTS:
        if "▁" in before:
            continue  # SentencePiece cannot tell it from a space
        (found,) = assembled([[Piece(f"x{before}{end}y")]], vocabulary)
        assert tokenizer.eos_token_id not in found["input_ids"]
        assert (
            tokenizer.decode(found["input_ids"], clean_up_tokenization_spaces=False).lstrip(" ") == f"x{before}{end}y"
        )


# --- Qwen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "tokenizer", "encoder"), [("qwen2_5", "qwen3", "qwen"), ("qwen3_5", "qwen3_5", "qwen3_5")]
)
def test_qwens_ids_are_those_of_its_own_encoder(template: str, tokenizer: str, encoder: str) -> None:
    """The encoder is given the text that our ids stand for, control tokens included."""
    theirs = official.tokenizer(tokenizer)
    _, one = create_template(template, theirs)
    ids = [one.encode_prompt(stage) for row in CHAT.values() for stage in list(stages(row))[1:]]
    texts = [theirs.decode(own, clean_up_tokenization_spaces=False) for own in ids]
    assert official.encoded_by(encoder, texts) == ids
