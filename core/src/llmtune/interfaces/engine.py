"""Engines: generate text from prepared prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llmtune.config.generation import GenerationSection


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One prompt."""

    id: str
    input_ids: list[int]
    settings: GenerationSection
    stop_token_ids: list[int] = field(default_factory=list)
    stop_words: list[str] = field(default_factory=list)
    seed: int | None = None
    adapter: str | None = None
    """Name of the adapter that answers; None is the one of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of an answer. `text` continues what came before for the same id."""

    id: str
    text: str
    finish_reason: Literal["stop", "length"] | None = None
    """Set on the last chunk of an answer."""
    new_tokens: int = 0
    """Tokens generated so far for this request."""


class Engine(ABC):
    """Holds a loaded model and answers requests."""

    @abstractmethod
    def start(self, model: Any, tokenizer: Any, choose: Callable[[str | None], None] | None = None) -> None:
        """Take over a loaded model (adapters applied); `choose` lets one of several adapters answer from then on."""

    @abstractmethod
    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Chunk]:
        """Yield chunks as they come; every request ends with one chunk that has a `finish_reason`."""

    def close(self) -> None:  # noqa: B027 - an engine without anything to free need not say so
        """Free the model. Called once, also after an error."""
