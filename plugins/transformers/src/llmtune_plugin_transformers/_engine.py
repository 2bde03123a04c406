"""The engine: `generate` on the model's own device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import GenerationConfig

from llmtune.api import Chunk, Engine, GenerationRequest
from llmtune_plugin_transformers._stream import TextSoFar, stream_tokens


class TransformersEngine(Engine):
    """Streams a single request token by token, answers several as one left-padded batch."""

    def start(self, model: Any, tokenizer: Any, choose: Callable[[str | None], None] | None = None) -> None:
        self.model, self.tokenizer, self.choose = model.eval(), tokenizer, choose

    def close(self) -> None:
        self.model = None

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Chunk]:
        if not requests:
            return
        if requests[0].seed is not None:
            torch.manual_seed(requests[0].seed)
        for adapter, group in groupby(requests, key=lambda request: request.adapter):
            if self.choose is not None:
                self.choose(adapter)
            together = list(group)
            if len(together) == 1 and together[0].settings.num_beams == 1:
                yield from self._stream(together[0])
            else:
                yield from self._batch(together)

    def _stream(self, request: GenerationRequest) -> Iterator[Chunk]:
        inputs = self._inputs([request.input_ids])
        text = TextSoFar(self.tokenizer, request.stop_words)
        stops = set(request.stop_token_ids)
        reason: Any = "length"
        for token in stream_tokens(self.model, inputs, self._config(request)):
            if token in stops:
                reason = "stop"
                break
            if new := text.push(token):
                yield Chunk(id=request.id, text=new, new_tokens=text.count)
            if text.stopped:
                reason = "stop"
                break
        yield Chunk(id=request.id, text=text.rest(), finish_reason=reason, new_tokens=text.count)

    def _batch(self, requests: Sequence[GenerationRequest]) -> Iterator[Chunk]:
        """All requests share the settings of the first, as one run has one set of generation flags."""
        inputs = self._inputs([request.input_ids for request in requests])
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=self._config(requests[0]))
        for request, ids in zip(requests, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            yield self._finished(request, ids)

    def _finished(self, request: GenerationRequest, ids: list[int]) -> Chunk:
        text = TextSoFar(self.tokenizer, request.stop_words)
        stops = set(request.stop_token_ids)
        pieces: list[str] = []
        for token in ids:
            if token in stops or text.stopped:
                return Chunk(
                    id=request.id, text="".join(pieces) + text.rest(), finish_reason="stop", new_tokens=text.count
                )
            pieces.append(text.push(token))
        reason: Any = "stop" if text.stopped else "length"
        return Chunk(id=request.id, text="".join(pieces) + text.rest(), finish_reason=reason, new_tokens=text.count)

    def _inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Pad on the left: (batch, longest) int64 ids and mask."""
        longest = max(map(len, prompts))
        ids = [[self.tokenizer.pad_token_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.model.device
        return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}

    def _config(self, request: GenerationRequest) -> GenerationConfig:
        settings = request.settings
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        if settings.do_sample and settings.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": settings.temperature,
                "top_k": settings.top_k,
                "top_p": settings.top_p,
            }
        return GenerationConfig(
            **sampling,
            max_new_tokens=settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
            num_beams=settings.num_beams,
            eos_token_id=request.stop_token_ids,
            pad_token_id=self.tokenizer.pad_token_id,
        )
