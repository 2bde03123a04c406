"""The chat template that a tokenizer carries (jinja), with labels from the structure of the conversation.

A carried template is a program that prints one text. To know which parts of the text come from the row, the
conversation is rendered twice: as it is, and with a mark in place of each text of the row. What stands
between the marks is the template's own; the marks are where the row's text stands in the other rendering.
That text is tokenised with special-token parsing off, as everywhere (`vocabulary.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

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
        (encoded,) = self.encode_batch([row])
        if isinstance(encoded, DataError):
            raise encoded
        return encoded

    def encode_batch(self, rows: Sequence[Row]) -> list[Encoded | DataError]:
        rendered: list[list[Piece] | DataError] = []
        for row in rows:
            try:
                rendered.append(joined(self._training_pieces(row)))
            except DataError as error:
                rendered.append(error)
        return assembled(rendered, self.vocabulary)

    def encode_prompt(self, row: Row) -> list[int]:
        own = self._rendered(row, generation=True)
        (encoded,) = assembled([joined(self._pieces(own))], self.vocabulary)
        assert not isinstance(encoded, DataError)
        return encoded["input_ids"]

    def stop_token_ids(self) -> list[int]:
        """The end-of-sequence token, and what this template ends an answer with."""
        probe: Row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
        ending = _after_last_mark(self._marked(probe)[0], self.vocabulary)
        ids = [self.tokenizer.eos_token_id, *ending[:1]]
        return list(dict.fromkeys(token for token in ids if token is not None))

    def closing_ids(self) -> list[int]:
        return self.stop_token_ids()[-1:]

    def jinja(self) -> str:
        carried = self._source
        return carried if isinstance(carried, str) else carried["default"]

    def carried(self) -> str | dict[str, str]:
        return self._source

    # --- rendering --------------------------------------------------------------------------------

    def _training_pieces(self, row: Row) -> list[Piece]:
        messages = row["messages"]
        if len(messages) == 1 and messages[0]["role"] == "assistant":
            return plain_text(messages[0]["content"], self.vocabulary.leading, self.tokenizer.eos_token_id)
        if messages[-1]["role"] != "assistant":
            raise DataError("has no answer to train on (the row ends with a question)")
        pieces = self._pieces(self._rendered(row))
        turns = self.loss_scales.turns if self.loss_scales else ""
        if turns == "all":
            return [piece._replace(answer=True, trained=True) for piece in pieces]
        trained = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [number for number in trained if messages[number].get("loss", True)]
        trained = trained[-1:] if turns == "last" else trained
        self._check_printed(row)
        for number in reversed(trained):
            pieces = self._with_answer(pieces, row, number)
        if not any(piece.trained for piece in pieces):
            raise DataError("no assistant turn is trained on")
        return pieces

    def _check_printed(self, row: Row) -> None:
        """Raise `DataError` where the template leaves out an answer, or what the answers depend on."""
        marked, texts = self._marked(row)
        printed = {texts[int(number)] for number in _MARK.findall(marked)}
        said = [("the system prompt", row.get("system")), *map(_said, row["messages"])]
        said.append(("the thoughts of the last answer", row["messages"][-1].get("reasoning_content")))
        lost = [what for what, text in said if text and text not in printed]
        names = [tool["function"]["name"] for tool in row.get("tools") or ()]
        names += [call["function"]["name"] for one in row["messages"] for call in one.get("tool_calls", ())]
        if not all(name in marked for name in names):
            lost = ["tools and their calls"]
        if lost:
            raise DataError(f"the model's chat template does not print {lost[0]}; choose another --template_type")

    def _with_answer(self, pieces: list[Piece], row: Row, number: int) -> list[Piece]:
        """Mark what the model writes for message `number`: from the end of its prompt to the end of its turn."""
        before: Row = {**row, "messages": row["messages"][:number]}
        prompt = joined(self._pieces(self._rendered(before, generation=True)))
        start = _common(prompt, pieces)
        if start is None:
            last = number == len(row["messages"]) - 1
            advice = "another --template_type" if last else "the last answer alone: --loss_scale_config_path last_round"
            raise DataError(
                f"answer {number + 1}: the model's chat template writes what is before it differently when the "
                f"answer is still to come; train with {advice}"
            )
        head, rest = start
        end = self._end(rest)
        own = [piece._replace(answer=True, trained=True) for piece in rest[:end]]
        if self.loss_scales and self.loss_scales.parts:
            own = weighed(own, row["messages"][number - 1]["content"], self.loss_scales, self.vocabulary)
        return [*head, *own, *rest[end:]]

    def _end(self, pieces: Sequence[Piece]) -> int:
        """Return the place behind the token that ends the turn, the first of those that stop an answer."""
        stops = set(self.stop_token_ids())
        for place, piece in enumerate(pieces):
            if piece.control and piece.control[0] in stops:
                return place + 1
        return len(pieces)

    def _pieces(self, stretches: Sequence[Stretch]) -> list[Piece]:
        pieces: list[Piece] = []
        for text, from_row in stretches:
            own = [text] if from_row else self.vocabulary.stretches(text)
            pieces += [Piece(part) if isinstance(part, str) else Piece(control=part) for part in own]
        return pieces

    def _rendered(self, row: Row, *, generation: bool = False) -> list[Stretch]:
        """Return the conversation as the template prints it, the row's text told apart from the template's."""
        marked, texts = self._marked(row, generation=generation)
        written = self._printed(*self._conversation(row), generation=generation)
        parts = _MARK.split(marked)
        own, numbers = parts[::2], [int(number) for number in parts[1::2]]
        found = _aligned(written, own, [texts[number] for number in numbers])
        if found is None:
            raise DataError("the model's chat template changes the text of the row in a way that cannot be followed")
        return found

    def _marked(self, row: Row, *, generation: bool = False) -> tuple[str, list[str]]:
        """Return what the template prints for marks, and the text that each stands for."""
        texts: list[str] = []

        def mark(text: str) -> str:
            texts.append(text)
            return f"{_OPEN}{len(texts) - 1}{_CLOSE}"

        messages, tools = self._conversation(row)
        return self._printed([_marked(one, mark) for one in messages], tools, generation=generation), texts

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


def _aligned(written: str, own: Sequence[str], texts: Sequence[str]) -> list[Stretch] | None:
    """Split `written` into the template's own parts and, between them, the texts as one of `_WAYS` gives them."""
    if not written.startswith(own[0]):
        return None
    stretches: list[Stretch] = [(own[0], False)]
    place = len(own[0])
    for text, following in zip(texts, own[1:], strict=True):
        ways = (way(text) for way in _WAYS)
        given = next((one for one in ways if written.startswith(one + following, place)), None)
        if given is None:
            return None
        stretches += [(given, True), (following, False)]
        place += len(given) + len(following)
    return [stretch for stretch in stretches if stretch[0]] if place == len(written) else None


def _common(prompt: Sequence[Piece], pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]] | None:
    """Split `pieces` behind what `prompt` says; None where they differ."""
    whole = list(pieces)
    place = 0
    for piece in prompt:
        text = ""
        while piece.text and place < len(whole) and whole[place].text and len(text) < len(piece.text):
            text += whole[place].text
            place += 1
        if piece.control and place < len(whole) and whole[place].control == piece.control:
            place += 1
        elif piece.control or not text.startswith(piece.text):
            return None
        elif len(text) > len(piece.text):
            kept = whole[place - 1].text
            cut = len(kept) - (len(text) - len(piece.text))
            whole[place - 1 : place] = [whole[place - 1]._replace(text=kept[:cut]), Piece(kept[cut:])]
    return whole[:place], whole[place:]


def _after_last_mark(text: str, vocabulary: Vocabulary) -> list[int]:
    """Return the control tokens behind the last text of a row."""
    tail = _MARK.split(text)[-1]
    return [part[0] for part in vocabulary.stretches(tail) if isinstance(part, tuple)]
