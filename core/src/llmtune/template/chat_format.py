"""Render rows in a chat format that is pure data (`TemplateSpec`).

Control tokens come from the template's own parts. The text of a row is tokenised with special-token
parsing off, so nothing that a row contains can become a control token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmtune.errors import DataError, UsageError
from llmtune.interfaces.template import Template
from llmtune.specs import Encoded, Message, Row, TemplateSpec

_SLOT = re.compile(r"(\{\{(?:SYSTEM|QUERY)\}\})")
Part = Any  # text, token ids, or names of tokenizer attributes


@dataclass(frozen=True)
class Piece:
    """A stretch of text or of control tokens that is trained on, or not."""

    text: str = ""
    control: tuple[int, ...] = ()
    trained: bool = False


class ChatFormat(Template):
    """A template made of parts; see `TemplateSpec`."""

    def __init__(self, spec: TemplateSpec, tokenizer: Any) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.stop_words = list(spec.stop_words)
        # Some vocabularies add runs of spaces as tokens; those are text.
        self._control_ids: dict[str, int] = {text: i for text, i in tokenizer.get_added_vocab().items() if text.strip()}
        alternatives = "|".join(re.escape(token) for token in sorted(self._control_ids, key=len, reverse=True))
        self._control = re.compile(f"({alternatives})") if alternatives else None

    # --- the Template interface -------------------------------------------------------------------

    def encode(self, row: Row) -> Encoded:
        pieces = self._opening(row)
        turns = _pairs(row["messages"])
        for number, (user, answer) in enumerate(turns):
            if answer is None:
                raise DataError("has no answer to train on (the row ends with a question)")
            pieces += self._question(user, number)
            trained = answer.get("loss", True)
            pieces.append(Piece(answer["content"], trained=trained))
            pieces += self._ending(last=number == len(turns) - 1, trained=trained)
        encoded = self._tokenize(pieces)
        if all(label == -100 for label in encoded["labels"]):
            raise DataError("no assistant turn is trained on")
        return encoded

    def encode_prompt(self, row: Row) -> list[int]:
        pieces = self._opening(row)
        for number, (user, answer) in enumerate(_pairs(row["messages"])):
            pieces += self._question(user, number)
            if answer is not None:
                pieces += [Piece(answer["content"]), *self._ending(last=False, trained=False)]
        return self._tokenize(pieces)["input_ids"]

    def stop_token_ids(self) -> list[int]:
        """The end-of-sequence token, what ends a turn here, and stop words that are one token."""
        ids = [self.tokenizer.eos_token_id]
        ids += [piece.control[0] for piece in self._render(self.spec.suffix) if piece.control][:1]
        ids += [self._control_ids[word] for word in self.stop_words if word in self._control_ids]
        return list(dict.fromkeys(token for token in ids if token is not None))

    def jinja(self) -> str:
        from llmtune.template.jinja import to_jinja

        return to_jinja(self.spec, self.tokenizer)

    # --- the parts of a conversation --------------------------------------------------------------

    def _opening(self, row: Row) -> list[Piece]:
        system = row.get("system")
        system = self.spec.default_system if system is None else system
        if not system:
            has_slot = any(isinstance(part, str) and "{{SYSTEM}}" in part for part in self.spec.prefix)
            return [] if has_slot else self._render(self.spec.prefix)
        parts = self.spec.system_prefix if self.spec.system_prefix is not None else self.spec.prefix
        if not any(isinstance(part, str) and "{{SYSTEM}}" in part for part in parts):
            raise DataError(f"template {self.spec.name!r} has no place for a system prompt, the row has one")
        return self._render(parts, {"{{SYSTEM}}": system})

    def _question(self, user: Message, number: int) -> list[Piece]:
        return self._render(self.spec.prompt, {"{{QUERY}}": user["content"]}, number)

    def _ending(self, *, last: bool, trained: bool) -> list[Piece]:
        """Return what follows an answer; the control tokens that end the turn are trained with it.

        Between turns that is so only where the separator starts as the suffix does: otherwise the
        model would learn to go on where it should stop.
        """
        suffix = self._render(self.spec.suffix)
        if not last and self.spec.chat_sep is None:
            raise DataError(f"template {self.spec.name!r} has no multi-turn form, the row has several turns")
        parts = suffix if last else self._render(self.spec.chat_sep or [])
        learns = trained and bool(parts) and bool(suffix) and parts[0] == suffix[0] and bool(parts[0].control)
        return [Piece(parts[0].text, parts[0].control, trained=True), *parts[1:]] if learns else parts

    def _render(self, parts: Iterable[Part], slots: Mapping[str, str] | None = None, number: int = 0) -> list[Piece]:
        pieces: list[Piece] = []
        for part in parts:
            if not isinstance(part, str):
                pieces.append(Piece(control=tuple(self._token_id(token) for token in part)))
                continue
            text = part.replace("{{ROUND0}}", str(number)).replace("{{ROUND1}}", str(number + 1))
            for stretch in filter(None, _SLOT.split(text)):
                content = (slots or {}).get(stretch)
                pieces += self._own_text(stretch) if content is None else [Piece(content)]
        return pieces

    def _own_text(self, text: str) -> list[Piece]:
        """Split the template's own text into control tokens and plain text."""
        stretches = self._control.split(text) if self._control else [text]
        ids = self._control_ids
        return [Piece(control=(ids[part],)) if part in ids else Piece(part) for part in stretches if part]

    def _token_id(self, token: int | str) -> int:
        found = token if isinstance(token, int) else getattr(self.tokenizer, token, None)
        if not isinstance(found, int):
            raise UsageError(f"template {self.spec.name!r} needs the tokenizer's {token}, which this tokenizer lacks")
        return found

    # --- tokens -----------------------------------------------------------------------------------

    def _tokenize(self, pieces: Iterable[Piece]) -> Encoded:
        ids: list[int] = []
        labels: list[int] = []
        for piece in _joined(pieces):
            tokens = list(piece.control) or self._text_ids(piece.text)
            ids += tokens
            labels += tokens if piece.trained else [-100] * len(tokens)
        return {"input_ids": ids, "labels": labels}

    def _text_ids(self, text: str) -> list[int]:
        """Tokenise text that must stay text.

        `split_special_tokens` covers tokens marked special; added tokens that are not marked so
        (`<think>` in some vocabularies) are broken up after their first character.
        """
        if self._control and self._control.search(text):
            text_parts = self._control.split(text)
            broken = [
                half for part in text_parts for half in ([part[:1], part[1:]] if part in self._control_ids else [part])
            ]
            return [token for part in broken if part for token in self._plain_ids(part)]
        return self._plain_ids(text)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring text of the same kind: tokens may merge across the parts of a template."""
    joined: list[Piece] = []
    for piece in pieces:
        previous = joined[-1] if joined else None
        if previous and not previous.control and not piece.control and previous.trained == piece.trained:
            joined[-1] = Piece(previous.text + piece.text, trained=piece.trained)
        elif piece.text or piece.control:
            joined.append(piece)
    return joined


def _pairs(messages: list[Message]) -> list[tuple[Message, Message | None]]:
    """Group turns into (user, assistant); the last answer may be missing."""
    pairs: list[tuple[Message, Message | None]] = []
    for message in messages:
        if message["role"] == "user" and (not pairs or pairs[-1][1] is not None):
            pairs.append((message, None))
        elif message["role"] == "assistant" and pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], message)
        else:
            raise DataError(f"turns must alternate user and assistant, found a {message['role']} turn out of order")
    if not pairs:
        raise DataError("the row has no turns")
    return pairs
