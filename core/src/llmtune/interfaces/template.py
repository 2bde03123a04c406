"""Templates: one object that renders rows for training, inference and serving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtune.errors import DataError
from llmtune.specs import Encoded, Row, ToolCall

if TYPE_CHECKING:
    from llmtune.template.loss_scale import LossScales


class Template(ABC):
    """Renders rows to token ids."""

    stop_words: list[str]
    """Texts that end an answer, besides the tokenizer's end-of-sequence token."""
    answer_begin: str = ""
    """What the prompt begins the answer with; it belongs to the answer's text (`<think>` of DeepSeek-R1)."""
    several_samples: bool = False
    """Whether `encode_samples` may give several for a row."""
    loss_scales: LossScales | None = None
    """Weights of answers in the loss, set by the run (--use_loss_scale)."""

    @abstractmethod
    def encode(self, row: Row) -> Encoded:
        """Render a complete row for training: ids of length T and labels that mask all but the targets.

        Raises `DataError` for a row that has nothing to train on.
        """

    def encode_batch(self, rows: Sequence[Row]) -> list[Encoded | DataError]:
        """Render many rows; one that cannot be trained on gives its error. Override it to tokenise all at once."""
        return [_encoded_or_error(self, row) for row in rows]

    def encode_samples(self, rows: Sequence[Row]) -> list[list[Encoded] | DataError]:
        """Like `encode_batch`, for formats in which a row may be several samples; they are shuffled apart."""
        return [one if isinstance(one, DataError) else [one] for one in self.encode_batch(rows)]

    def closing_ids(self) -> list[int]:
        """Return the trained tokens that end the last answer; a row cut on the right keeps them."""
        return []

    @abstractmethod
    def encode_prompt(self, row: Row) -> list[int]:
        """Render a row that ends with a user turn, up to where the model starts to answer."""

    @abstractmethod
    def stop_token_ids(self) -> list[int]:
        """Return the ids that end an answer."""

    def parse_tool_calls(self, text: str) -> tuple[str, list[ToolCall]]:
        """Return the content of a generated answer, and the calls of tools in it."""
        return text, []

    @abstractmethod
    def jinja(self) -> str:
        """Return the same format as a `chat_template` of transformers."""

    def carried(self) -> str | dict[str, str]:
        """Return what the tokenizers of checkpoints carry: `jinja`, or several by their names."""
        return self.jinja()


def _encoded_or_error(template: Template, row: Row) -> Encoded | DataError:
    try:
        return template.encode(row)
    except DataError as error:
        return error
