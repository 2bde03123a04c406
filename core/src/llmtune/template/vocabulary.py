"""A tokenizer as templates use it: control tokens by their text, and text that never becomes one.

Some tokenizers put a space before a text (SentencePiece's dummy prefix). Whether they do so behind a control
token as well differs: `Vocabulary` gives the ids that the whole string would have at that place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

_SHORT, _MANY = 32, 4096  # texts below so many characters are tokenised once, up to so many of them
# What vocabularies add without marking it special although it is text: runs of white space, and Gemma's HTML tags.
_TAGS = (
    "a b bbox blockquote body caption code div em footer h[1-6] html i iframe img li s span strong sub sup table "
    "tbody td tfoot th thead tr u ul"
)
_TEXT = re.compile(rf"[\s▁]+|</?(?:{_TAGS.replace(' ', '|')})>")


class Place(NamedTuple):
    """A text, and whether it stands right behind a control token."""

    text: str
    behind: bool = False


class Vocabulary:
    """Wraps a tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special_tokens_in_text = False
        """Whether names of control tokens in the text of rows become those tokens, set by the run."""
        self.control_ids = _control_ids(tokenizer)
        alternatives = "|".join(re.escape(token) for token in sorted(self.control_ids, key=len, reverse=True))
        self._control = re.compile(f"({alternatives})") if alternatives else None
        self._first_characters = {token[0] for token in self.control_ids}
        self._short: dict[Place, list[int]] = {}

    @cached_property
    def swallowing_left(self) -> set[int]:
        """Control tokens that take the white space before them away (`lstrip`, in Phi-4's vocabulary)."""
        return {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.lstrip}

    @cached_property
    def swallowing_right(self) -> set[int]:
        """Control tokens that take the white space behind them away (`rstrip`, in Phi-3's vocabulary)."""
        return {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.rstrip}

    @cached_property
    def swallowing(self) -> set[int]:
        return self.swallowing_left | self.swallowing_right

    @cached_property
    def leading(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts before every text (BOS, or `[gMASK]<sop>`)."""
        with_added = list(self.tokenizer("a")["input_ids"])
        (plain,) = plain_ids(self.tokenizer, ["a"])
        places = [place for place in range(len(with_added)) if with_added[place : place + len(plain)] == plain]
        return tuple(with_added[: places[0]]) if places else ()

    def stretches(self, text: str) -> list[str | tuple[int, ...]]:
        """Split a template's own text into control tokens, each a tuple of its id, and text between them."""
        parts = self._control.split(text) if self._control else [text]
        return [(self.control_ids[part],) if part in self.control_ids else part for part in parts if part]

    def ids(self, places: Iterable[Place]) -> Mapping[Place, list[int]]:
        """Return the ids of each text: short ones are remembered, the others go to the tokenizer together.

        The tokenizer takes control tokens that are marked special for text (`encode_special_tokens`);
        added tokens that are not marked so (`<think>` in some vocabularies) are broken up after their
        first character.
        """
        wanted = [self._place(*place) for place in dict.fromkeys(places)]
        new = dict.fromkeys(place for place in wanted if place.text and place not in self._short)
        broken = {place: self._broken_up(place) for place in new if self.control_name(place.text)}
        parts = (part for part in _flat(broken.values()) if not self._is_control(part))
        flat = list(dict.fromkeys([*(place for place in new if place not in broken), *parts]))
        known = {
            **_zipped(self.tokenizer, [place for place in flat if not place.behind]),
            **_zipped(self._without_prefix, [place for place in flat if place.behind]),
        }
        for place, own in broken.items():
            ids = [(self.control_ids[part.text],) if self._is_control(part) else known[part] for part in own]
            known[place] = [token for part_ids in ids for token in part_ids]
        if len(self._short) < _MANY:
            self._short.update((place, known[place]) for place in new if len(place.text) < _SHORT)
        return _Found(known, self._short, self)

    def starts(self, place: Place) -> list[int]:
        """Return the character at which each token of a text begins."""
        place = self._place(*place)
        places = self._broken_up(place) if self.control_name(place.text) else [place]
        found, before = [], 0
        for part in places:
            if self._is_control(part):
                found.append(before)
                before += len(part.text)
                continue
            backend = getattr(self._without_prefix if part.behind else self.tokenizer, "backend_tokenizer", None)
            if backend is None:  # a tokenizer written in Python
                raise NotImplementedError("weights inside of an answer need a fast tokenizer")
            plain_ids(self.tokenizer, ["a"])  # sets the state that the next line relies on
            offsets = backend.encode(part.text, add_special_tokens=False).offsets
            found += [before + start for start, _ in offsets]
            before += len(part.text)
        return found

    def control_name(self, text: str) -> str | None:
        """Return the first control token that is written in a text; most do not even hold a first character of one."""
        if self._control is None or not any(character in text for character in self._first_characters):
            return None
        found = self._control.search(text)
        return found[0] if found else None

    # --- details ----------------------------------------------------------------------------------

    def _place(self, text: str, behind: bool) -> Place:
        return Place(text, behind and self._prefix_only_first)

    @cached_property
    def _without_prefix(self) -> Any:
        """The same tokenizer for text that continues another text."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        stripped = None if backend is None else _stripped(json.loads(backend.to_str()))
        if stripped is None:
            return self.tokenizer
        from tokenizers import Tokenizer

        return _Backend(Tokenizer.from_str(json.dumps(stripped)))

    @cached_property
    def _prefix_only_first(self) -> bool:
        """Whether a text behind a control token gets no prefix although one at the start does."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return False
        return any(part.get("prepend_scheme") == "first" for part in _components(json.loads(backend.to_str())))

    def _is_control(self, part: Place) -> bool:
        return self.special_tokens_in_text and part.text in self.control_ids

    def _broken_up(self, place: Place) -> list[Place]:
        """Return a text in parts: such that spell no control token, or where they are wanted, those and the rest."""
        if self.special_tokens_in_text and self._control is not None:
            first, *others = filter(None, self._control.split(place.text))
        else:
            first, *others = self._halves(place.text)
        return [Place(first, place.behind), *(Place(half, True) for half in others)]

    def _halves(self, text: str) -> Iterator[str]:
        """Yield a text in parts that spell no control token; the rest of one may spell another (`<<s>`)."""
        assert self._control is not None
        for part in filter(None, self._control.split(text)):
            if part in self.control_ids:
                yield part[:1]
                yield from self._halves(part[1:])
            else:
                yield part


def _control_ids(tokenizer: Any) -> dict[str, int]:
    """Return the added tokens that no text may become."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    added: dict[str, int] = tokenizer.get_added_vocab()
    return {text: number for text, number in added.items() if number in special or not _TEXT.fullmatch(text)}


class _Backend:
    """A tokenizer of the tokenizers library, as `plain_ids` takes it."""

    def __init__(self, backend: Any) -> None:
        self.backend_tokenizer = backend


class _Found(dict[Place, list[int]]):
    """The ids of a batch, with those of short texts behind them."""

    def __init__(self, known: dict[Place, list[int]], short: Mapping[Place, list[int]], of: Vocabulary) -> None:
        super().__init__(known)
        self._short, self._of = short, of

    def __missing__(self, place: Place) -> list[int]:
        place = self._of._place(*place)
        return self[place] if place in self else self._short[place]


def _flat(lists: Iterable[Sequence[Place]]) -> list[Place]:
    return [place for places in lists for place in places]


def _zipped(tokenizer: Any, places: list[Place]) -> dict[Place, list[int]]:
    return dict(zip(places, plain_ids(tokenizer, [place.text for place in places]), strict=True)) if places else {}


def plain_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Tokenise texts that must stay text, all in one call; nothing is added to them."""
    if not texts:
        return []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):  # a tokenizer written in Python
        return [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts]
    if not backend.encode_special_tokens:
        backend.encode_special_tokens = True  # transformers sets it for each of its own calls
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _components(serialized: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the normalizers and pre-tokenizers of a serialized tokenizer, sequences flattened."""
    found: list[dict[str, Any]] = []
    for kind, members in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        top = serialized.get(kind)
        found += (top.get(members) or [top]) if top else []
    return found


def _stripped(serialized: dict[str, Any]) -> dict[str, Any] | None:
    """Return a serialized tokenizer that puts nothing before a text, None where it is one already."""
    found = False
    for part in _components(serialized):
        if part.get("prepend_scheme") in ("first", "always"):
            part["prepend_scheme"], found = "never", True
        if part["type"] == "Prepend" and part.get("prepend"):
            part["prepend"], found = "", True
        if part["type"] == "ByteLevel" and part.get("add_prefix_space"):
            part["add_prefix_space"], found = False, True
    return serialized if found else None
