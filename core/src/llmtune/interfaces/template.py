"""Templates: one object that renders rows for training, inference and serving."""

from __future__ import annotations

from abc import ABC, abstractmethod

from llmtune.specs import Encoded, Row


class Template(ABC):
    """Renders rows to token ids."""

    stop_words: list[str]
    """Texts that end an answer, besides the tokenizer's end-of-sequence token."""

    @abstractmethod
    def encode(self, row: Row) -> Encoded:
        """Render a complete row for training: ids of length T and labels that mask all but the targets.

        Raises `DataError` for a row that has nothing to train on.
        """

    @abstractmethod
    def encode_prompt(self, row: Row) -> list[int]:
        """Render a row that ends with a user turn, up to where the model starts to answer."""

    @abstractmethod
    def stop_token_ids(self) -> list[int]:
        """Return the ids that end an answer."""

    @abstractmethod
    def jinja(self) -> str:
        """Return the same format as a `chat_template` of transformers."""
