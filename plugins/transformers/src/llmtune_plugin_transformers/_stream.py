"""Stream tokens out of `generate`, and turn them into text that never has to be taken back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

_END = object()


class _Queue(BaseStreamer):
    """Collects what `generate` produces; the first call carries the prompt and is skipped."""

    def __init__(self) -> None:
        self.items: queue.Queue[Any] = queue.Queue()
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self.items.put(int(value.reshape(-1)[0]))
        self._prompt_seen = True

    def end(self) -> None:
        self.items.put(_END)


class _Cancelled(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


def stream_tokens(model: Any, inputs: dict[str, torch.Tensor], config: GenerationConfig) -> Iterator[int]:
    """Yield the tokens of one answer as they are generated; closing the iterator stops the model."""
    stream, cancelled = _Queue(), threading.Event()

    def run() -> None:
        try:
            if model.device.type == "cuda":
                torch.cuda.set_device(model.device)  # every thread begins with the first GPU
            with torch.inference_mode():
                stopping = StoppingCriteriaList([_Cancelled(cancelled)])
                model.generate(**inputs, generation_config=config, streamer=stream, stopping_criteria=stopping)
        except BaseException as error:
            stream.items.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (item := stream.items.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        cancelled.set()
        thread.join()


class TextSoFar:
    """Decodes tokens one by one.

    Holds back text that may still change: a character whose bytes are not all there, and the
    beginning of a stop word.
    """

    def __init__(self, tokenizer: Any, stop_words: Sequence[str]) -> None:
        self.tokenizer, self.stop_words = tokenizer, list(stop_words)
        self.count = 0
        self.stopped = False
        self._ids: list[int] = []
        self._shown = 0
        self._text = ""

    def push(self, token: int) -> str:
        """Add a token and return the text that is certain now."""
        self.count += 1
        self._ids.append(token)
        self._text = self.tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ends = [self._text.find(word) for word in self.stop_words if word in self._text]
        if ends:
            self.stopped = True
            self._text = self._text[: min(ends)]
            return self._show(len(self._text))
        return self._show(len(self._text) - self._uncertain())

    def rest(self) -> str:
        """Return what was held back; nothing more will come."""
        return self._show(len(self._text))

    def _show(self, end: int) -> str:
        new, self._shown = self._text[self._shown : end], max(self._shown, end)
        return new

    def _uncertain(self) -> int:
        if self._text.endswith("\ufffd"):
            return len(self._text) - len(self._text.rstrip("\ufffd"))
        starts = [size for word in self.stop_words for size in range(1, len(word)) if self._text.endswith(word[:size])]
        return max(starts, default=0)
