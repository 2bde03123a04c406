"""The chat template that a tokenizer carries (jinja), with labels from the structure of the conversation.

A carried template is a program that prints one text. To know which parts of the text come from the row, the
conversation is rendered twice: as it is, and with a mark in place of each text of the row. What stands
between the marks is the template's own; the marks are where the row's text stands in the other rendering.
That text is tokenised with special-token parsing off, as everywhere (`vocabulary.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from llmtune.errors import DataError, UsageError
from llmtune.interfaces.template import Template
from llmtune.specs import Encoded, Message, Row, ToolCall
from llmtune.template.pieces import Piece, assembled, joined, plain_text, weighed
from llmtune.template.tool_results import answered_calls
from llmtune.template.tools_prompt import Stretch
from llmtune.template.vocabulary import Vocabulary

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"  # private use: a mark is a number between them
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

_WAYS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    str.strip,
    lambda text: text.strip("\n"),
    str.rstrip,
    str.lstrip,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1],
)
"""What templates do to a text before they print it: nothing, strip it, write it as JSON."""


class CarriedTemplate(Template):
    """Renders rows with `tokenizer.chat_template`."""

    several_samples = True

    def __init__(self, name: str, tokenizer: Any, default_system: str | None = None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                f"template {name!r} uses the chat template that the tokenizer carries, and this one carries none",
                fix="--template_type NAME (llmtune templates lists them); base models: default-generation",
            )
        self.tokenizer, self.default_system = tokenizer, default_system
        self._source: str | dict[str, str] = tokenizer.chat_template
        """One, or several by their names: transformers takes `tool_use` for rows with tools, `default` for others."""
        self.spec = (name, tokenizer.chat_template, default_system)
        self.vocabulary = Vocabulary(tokenizer)
        self.stop_words: list[str] = []

    def encode(self, row: Row) -> Encoded:
        (encoded,) = self.encode_samples([row])
        if isinstance(encoded, DataError):
            raise encoded
        if len(encoded) > 1:
            raise DataError(f"is {len(encoded)} samples: each answer has another context when it is given")
        return encoded[0]

    def encode_samples(self, rows: Sequence[Row]) -> list[list[Encoded] | DataError]:
        """Render rows; one whose earlier turns are written otherwise while an answer is to come gives one for each."""
        rendered: list[list[Piece] | DataError] = []
        counts: list[int] = []
        for row in rows:
            try:
                samples = [joined(pieces) for pieces in self._samples(row)]
            except DataError as error:
                rendered.append(error)
                counts.append(0)
            else:
                rendered += samples
                counts.append(len(samples))
        encoded = iter(assembled(rendered, self.vocabulary))
        return [_together([next(encoded) for _ in range(max(count, 1))]) for count in counts]

    def encode_prompt(self, row: Row) -> list[int]:
        own = self._rendered(row, generation=True)
        (encoded,) = assembled([joined(self._pieces(own.stretches))], self.vocabulary)
        assert not isinstance(encoded, DataError)
        return encoded["input_ids"]

    def stop_token_ids(self) -> list[int]:
        """The end-of-sequence token, and what this template ends an answer with."""
        ids = [self.tokenizer.eos_token_id, self._stop]
        return list(dict.fromkeys(token for token in ids if token is not None))

    @property
    def ends_answers(self) -> bool:
        """Whether a control token ends an answer: trained with it, and what stops it when the model is served."""
        return self._stop is not None

    @cached_property
    def _stop(self) -> int | None:
        """The first control token behind an answer, or where there is none, the one that begins the next question."""
        question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        for turns, behind in (([question, answer], -1), ([question, answer, question, answer], 2)):
            try:
                between = _MARK.split(self._marked({"messages": turns}).text)[::2]  # type: ignore[typeddict-item]
            except DataError:
                continue
            control = [part[0] for part in self.vocabulary.stretches(between[behind]) if isinstance(part, tuple)]
            if control:
                return control[0]
        return None

    def closing_ids(self) -> list[int]:
        return [] if self._stop is None else [self._stop]

    def jinja(self) -> str:
        carried = self._source
        return carried if isinstance(carried, str) else carried["default"]

    def carried(self) -> str | dict[str, str]:
        return self._source

    # --- rendering --------------------------------------------------------------------------------

    def _samples(self, row: Row) -> list[list[Piece]]:
        messages = row["messages"]
        if len(messages) == 1 and messages[0]["role"] == "assistant":
            return [plain_text(messages[0]["content"], self.vocabulary.leading, self.tokenizer.eos_token_id)]
        if messages[-1]["role"] != "assistant":
            raise DataError("has no answer to train on (the row ends with a question)")
        turns = self.loss_scales.turns if self.loss_scales else ""
        if turns == "all":
            pieces = self._pieces(self._rendered(row).stretches)
            return [[piece._replace(answer=True, trained=True) for piece in pieces]]
        trained = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [number for number in trained if messages[number].get("loss", True)]
        trained = trained[-1:] if turns == "last" and trained[-1:] == [len(messages) - 1] else trained
        if not trained or (turns == "last" and trained[-1] != len(messages) - 1):
            raise DataError("no assistant turn is trained on")
        self._check_printed(row)
        whole = self._rendered(row)
        found = {number: self._span(whole, row, number) for number in trained}
        spans = {number: span for number, span in found.items() if span is not None}
        if len(spans) == len(trained):
            return [self._trained(whole, row, spans)]
        return [self._alone({**row, "messages": messages[: number + 1]}) for number in trained]

    def _alone(self, row: Row) -> list[Piece]:
        """Return the sample of a row's last answer, in the context in which it is given."""
        number = len(row["messages"]) - 1
        self._check_printed(row)
        whole = self._rendered(row)
        span = self._span(whole, row, number) or self._span(whole, row, number, loosely=True)
        if span is None:
            raise DataError(
                f"answer {number + 1}: the model's chat template writes what is before it differently when the answer "
                "is still to come; train with another --template_type"
            )
        return self._trained(whole, row, {number: span})

    def _span(self, whole: _Rendering, row: Row, number: int, *, loosely: bool = False) -> tuple[int, int] | None:
        """Return where the model begins to write message `number` and where its turn ends; None where its prompt is
        not the beginning of `whole`.

        `loosely` a prompt may go on otherwise than the answer does (with `<think>`) behind all earlier turns.
        """
        before = self._conversation({**row, "messages": row["messages"][:number]})
        prompt = self._printed(*before, generation=True)
        start = len(prompt)
        if not whole.text.startswith(prompt):
            if not loosely:
                return None
            start = _in_common(prompt, whole.text)
            if start < len(self._printed(*before, generation=False)):
                return None
        end = max([start, *(place for owner, place in whole.ends if owner == number)])
        return start, end + self._ending(whole, row, number, end)

    def _ending(self, whole: _Rendering, row: Row, number: int, end: int) -> int:
        """Return how many characters of what follows the last text of an answer belong to its turn."""
        if number == len(row["messages"]) - 1:
            return len(whole.text) - end
        alone = self._rendered({**row, "messages": row["messages"][: number + 1]})
        last = max((place for owner, place in alone.ends if owner == number), default=len(alone.text))
        return _in_common(alone.text[last:], whole.text[end:])

    def _trained(self, whole: _Rendering, row: Row, spans: Mapping[int, tuple[int, int]]) -> list[Piece]:
        """Return the pieces of a rendering in which the answers at `spans` are trained, each with what ends it."""
        pieces: list[Piece] = []
        place = 0
        for number, (start, end) in spans.items():
            pieces += self._handed_over(pieces, self._pieces(whole.between(place, start)))
            own = [piece._replace(answer=True, trained=True) for piece in self._pieces(whole.between(start, end))]
            stops = self.stop_token_ids()
            closed = next((at for at, piece in enumerate(own) if piece.control and piece.control[0] in stops), len(own))
            own, rest = own[: closed + 1], own[closed + 1 :]
            if self.loss_scales and self.loss_scales.parts:
                own = weighed(own, row["messages"][number - 1]["content"], self.loss_scales, self.vocabulary)
            pieces += [*own, *(Piece(piece.text, piece.control) for piece in rest)]
            place = end
        rest = self._handed_over(pieces, self._pieces(whole.between(place, len(whole.text))))
        if not rest and self._stop is not None and pieces[-1].trained and pieces[-1].control != (self._stop,):
            rest = [Piece(control=(self._stop,), answer=True, trained=True)]  # the next question would begin with it
        return [*pieces, *rest]

    def _handed_over(self, before: Sequence[Piece], pieces: list[Piece]) -> list[Piece]:
        """Where nothing ends an answer, the token that begins the next turn does."""
        open_answer = bool(before) and before[-1].trained and before[-1].control[:1] != (self._stop,)
        if open_answer and pieces and pieces[0].control[:1] == (self._stop,):
            return [pieces[0]._replace(answer=True, trained=True), *pieces[1:]]
        return pieces

    def _check_printed(self, row: Row) -> None:
        """Raise `DataError` where the template leaves out an answer, or what the answers depend on."""
        marked = self._marked(row)
        printed = {marked.texts[int(number)] for number in _MARK.findall(marked.text)}
        said = [("the system prompt", row.get("system")), *map(_said, row["messages"])]
        said.append(("the thoughts of the last answer", row["messages"][-1].get("reasoning_content")))
        lost = [what for what, text in said if text and text not in printed]
        names = [tool["function"]["name"] for tool in row.get("tools") or ()]
        names += [call["function"]["name"] for one in row["messages"] for call in one.get("tool_calls", ())]
        if not all(name in marked.text for name in names):
            lost = ["tools and their calls"]
        if lost:
            raise DataError(f"the model's chat template does not print {lost[0]}; choose another --template_type")

    def _pieces(self, stretches: Sequence[Stretch]) -> list[Piece]:
        pieces: list[Piece] = []
        for text, from_row in stretches:
            own = [text] if from_row else self.vocabulary.stretches(text)
            pieces += [Piece(part) if isinstance(part, str) else Piece(control=part) for part in own]
        return pieces

    def _rendered(self, row: Row, *, generation: bool = False) -> _Rendering:
        """Return the conversation as the template prints it, the row's text told apart from the template's."""
        marked = self._marked(row, generation=generation)
        written = self._printed(*self._conversation(row), generation=generation)
        parts = _MARK.split(marked.text)
        own, numbers = parts[::2], [int(number) for number in parts[1::2]]
        found = _aligned(written, own, [marked.texts[number] for number in numbers])
        if found is None:
            raise DataError("the model's chat template changes the text of the row in a way that cannot be followed")
        stretches, ends = found
        return _Rendering(
            written, stretches, [(marked.owners[one], end) for one, end in zip(numbers, ends, strict=True)]
        )

    def _marked(self, row: Row, *, generation: bool = False) -> _Marked:
        """Return what the template prints for marks, and the text and the message that each stands for."""
        texts: list[str] = []
        owners: list[int] = []
        messages, tools = self._conversation(row)
        first = len(messages) - len(row["messages"])  # a system prompt is message -1
        marked = []
        for number, message in enumerate(messages):

            def mark(text: str, owner: int = number - first) -> str:
                texts.append(text)
                owners.append(owner)
                return f"{_OPEN}{len(texts) - 1}{_CLOSE}"

            marked.append(_marked(message, mark))
        return _Marked(self._printed(marked, tools, generation=generation), texts, owners)

    def _conversation(self, row: Row) -> tuple[list[dict[str, Any]], Any]:
        system = row.get("system")
        system = self.default_system if system is None else system
        messages = _as_known(row["messages"])
        if any(row.get(kind) for kind in ("images", "videos", "audios")):
            raise DataError("has images, videos or audio, which the chat template of a text model has no place for")
        return [*([{"role": "system", "content": system}] if system else []), *messages], row.get("tools") or None

    def _printed(self, messages: Sequence[Any], tools: Any, *, generation: bool) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, tokenize=False, add_generation_prompt=generation
            )
        except Exception as error:  # templates raise whatever they like, jinja adds its own
            raise DataError(f"the model's chat template refuses the row: {error}") from error
        return text


def _said(message: Message) -> tuple[str, str]:
    return ("an answer" if message["role"] == "assistant" else f"a text of role {message['role']}"), message["content"]


_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


def _as_known(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages under the names that chat templates know.

    gpt-oss reads `thinking`; results are told apart by the ids of their calls, which are made up where a row has none.
    """
    found: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        known: dict[str, Any] = {key: value for key, value in message.items() if key != "loss"}
        if "reasoning_content" in message:
            known["thinking"] = message["reasoning_content"]
        if message.get("tool_calls"):
            known["tool_calls"] = [_with_id(call, number, place) for place, call in enumerate(message["tool_calls"])]
        found.append(known)
    for asked, results in groupby(
        (number for number, message in enumerate(messages) if message["role"] == "tool"),
        key=lambda number: max((at for at in range(number) if messages[at]["role"] != "tool"), default=-1),
    ):
        told = list(results)
        calls = messages[asked].get("tool_calls", []) if asked >= 0 else []
        for number, place in zip(told, answered_calls([messages[at] for at in told], calls), strict=True):
            if place is not None:
                call = found[asked]["tool_calls"][place]
                found[number] |= {"tool_call_id": call["id"], "name": call["function"]["name"]}
    return found


def _with_id(call: ToolCall, number: int, place: int) -> ToolCall:
    """An id is no text of the row to a template, which may count its characters: it must be plain."""
    named = call.get("id", f"call{number:03}{place:02}")
    if not _ID.fullmatch(named):
        raise DataError(f"the id of a call must be 1 to 64 letters, digits, '_', '-', '.' or ':', found {named!r}")
    return {**call, "id": named}


def _marked(message: dict[str, Any], mark: Callable[[str], str]) -> dict[str, Any]:
    """Return a message whose texts are marks: its content, its thoughts, the texts of its calls."""
    marked = dict(message)
    for key in ("content", "reasoning_content"):
        if message.get(key):
            marked[key] = mark(message[key])
    if "thinking" in marked:
        marked["thinking"] = marked["reasoning_content"]
    if message.get("tool_calls"):
        marked["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _values(call["function"]["arguments"], mark)}}
            for call in message["tool_calls"]
        ]
    return marked


def _values(value: Any, mark: Callable[[str], str]) -> Any:
    """Return an argument with its texts marked; empty texts stay, numbers are the template's to write."""
    if isinstance(value, dict):
        return {key: _values(one, mark) for key, one in value.items()}
    if isinstance(value, list):
        return [_values(one, mark) for one in value]
    return mark(value) if isinstance(value, str) and value else value


def _aligned(written: str, own: Sequence[str], texts: Sequence[str]) -> tuple[list[Stretch], list[int]] | None:
    """Split `written` into the template's own parts and, between them, the texts as one of `_WAYS` gives them.

    Returns (stretches, where each text ends), None where it cannot be split.
    """
    if not written.startswith(own[0]):
        return None
    stretches: list[Stretch] = [(own[0], False)]
    ends: list[int] = []
    place = len(own[0])
    for text, following in zip(texts, own[1:], strict=True):
        ways = (way(text) for way in _WAYS)
        given = next((one for one in ways if written.startswith(one + following, place)), None)
        if given is None:
            return None
        stretches += [(given, True), (following, False)]
        ends.append(place + len(given))
        place += len(given) + len(following)
    return (stretches, ends) if place == len(written) else None


def _in_common(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _together(samples: list[Encoded | DataError]) -> list[Encoded] | DataError:
    """Return the samples of a row, or what is wrong with one of them."""
    wrong = next((one for one in samples if isinstance(one, DataError)), None)
    return wrong or [one for one in samples if not isinstance(one, DataError)]


class _Marked(NamedTuple):
    """What a template prints for a conversation whose texts are marks."""

    text: str
    texts: list[str]
    owners: list[int]
    """The number of the message that each text belongs to."""


class _Rendering(NamedTuple):
    """What a template prints for a conversation."""

    text: str
    stretches: list[Stretch]
    ends: list[tuple[int, int]]
    """(message, where one of its texts ends) in the order in which they are printed."""

    def between(self, start: int, end: int) -> list[Stretch]:
        """Return the stretches from character `start` to `end`."""
        found: list[Stretch] = []
        place = 0
        for text, from_row in self.stretches:
            part = text[max(0, start - place) : max(0, end - place)]
            found += [(part, from_row)] if part else []
            place += len(text)
        return found
