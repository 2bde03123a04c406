"""What every engine must hold, seen on a tiny model that has learnt a few answers by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtune.config.generation import GenerationSection
from llmtune.interfaces.engine import Chunk, Engine, GenerationRequest
from llmtune.testing.tiny import load_tiny, one_thread, tiny_model

ANSWERS = {
    "a": "one fine day in May",
    "colour?": "green and blue",
    "Tell me a longer story, please.": "The end came early, said the fox.",
}
"""Prompts of different lengths, and what the model says."""
GREEDY = GenerationSection(do_sample=False, max_new_tokens=48)


class EngineTests:
    """Checks one engine. Give the fixture `engine`, not started: the kit starts and closes it."""

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        with one_thread():
            yield

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError("override the fixture `engine`: return your engine, before start()")

    @pytest.fixture(scope="class")
    @classmethod
    def taught(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a model that gives `ANSWERS` under greedy decoding."""
        folder = tmp_path_factory.mktemp("taught")
        loaded = load_tiny(tiny_model(folder))
        with one_thread():
            teach(loaded.model, loaded.tokenizer)
        loaded.model.save_pretrained(folder)
        return folder

    @pytest.fixture
    def tokenizer(self, taught: Path) -> Any:
        return load_tiny(taught).tokenizer

    @pytest.fixture
    def started(self, engine: Engine, taught: Path) -> Iterator[Engine]:
        loaded = load_tiny(taught)
        engine.start(loaded.model, loaded.tokenizer)
        yield engine
        engine.close()

    @pytest.fixture
    def requests(self, tokenizer: Any) -> list[GenerationRequest]:
        """One greedy request for each prompt; their ids are the prompts."""
        return [request(tokenizer, prompt) for prompt in ANSWERS]

    def test_a_stop_token_ends_an_answer(self, started: Engine, requests: list[GenerationRequest]) -> None:
        for one in requests:
            text, reason = answer(started, one)
            assert (text, reason) == (ANSWERS[one.id], "stop"), (
                f"expected {ANSWERS[one.id]!r} and finish_reason 'stop', found {text!r} and {reason!r}: end at "
                "request.stop_token_ids and leave the stop token out of the text"
            )

    def test_streamed_pieces_are_the_batch_answer(self, started: Engine, requests: list[GenerationRequest]) -> None:
        together = answers(started, requests)
        for one in requests:
            streamed, _ = answer(started, one)
            assert streamed == together[one.id], (
                f"alone it answers {streamed!r}, in a batch {together[one.id]!r}: pad on the left with an attention "
                "mask, and let Chunk.text only ever continue what came before"
            )

    def test_every_request_ends_once(self, started: Engine, requests: list[GenerationRequest]) -> None:
        for group in ([requests[0]], requests):
            chunks = list(started.generate(group))
            for one in group:
                reasons = [chunk.finish_reason for chunk in chunks if chunk.id == one.id]
                assert reasons[-1:] != [None], f"request {one.id!r} has no end: give its last chunk a finish_reason"
                assert reasons.count(None) == len(reasons) - 1, (
                    f"request {one.id!r} has finish reasons {reasons}: only the last chunk may have one"
                )

    def test_max_new_tokens_is_respected(self, started: Engine, tokenizer: Any) -> None:
        settings = GREEDY.model_copy(update={"max_new_tokens": 3})
        group = [request(tokenizer, prompt, settings=settings) for prompt in ANSWERS]
        for some in ([group[0]], group):
            for last in [chunk for chunk in started.generate(some) if chunk.finish_reason is not None]:
                assert (last.finish_reason, last.new_tokens) == ("length", 3), (
                    f"max_new_tokens=3 ended with {last.finish_reason!r} after {last.new_tokens} tokens: stop there, "
                    "with finish_reason 'length' and new_tokens counted"
                )

    def test_a_stop_word_is_cut_off(self, started: Engine, tokenizer: Any) -> None:
        group = [request(tokenizer, prompt, stop_words=[answer[5:9]]) for prompt, answer in ANSWERS.items()]
        expected = {prompt: (answer[:5], "stop") for prompt, answer in ANSWERS.items()}
        for some in (*([one] for one in group), group):
            for name, found in _collected(started.generate(some)).items():
                assert found == expected[name], (
                    f"with the stop word {ANSWERS[name][5:9]!r} it gave {found}, expected {expected[name]}: hold back "
                    "text that may become a stop word, and end with 'stop'"
                )

    def test_an_answer_that_is_left_early_leaves_the_engine_usable(
        self, started: Engine, requests: list[GenerationRequest]
    ) -> None:
        chunks = started.generate([requests[2]])
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        text, _ = answer(started, requests[0])
        assert text == ANSWERS[requests[0].id], (
            f"after an iterator was closed the next answer is {text!r}: write generate() as a generator and stop the "
            "work in its `finally`"
        )

    def test_no_request_gives_no_chunk(self, started: Engine) -> None:
        assert list(started.generate([])) == [], "generate([]) gave chunks: return at once when there is no request"

    def test_a_seed_repeats_a_sample(self, started: Engine, tokenizer: Any) -> None:
        sampling = GenerationSection(do_sample=True, temperature=3.0, top_k=0, top_p=1.0, max_new_tokens=12)
        prompts = list(ANSWERS)
        for group in (prompts[:1], prompts):

            def sample(seed: int, group: Sequence[str] = group) -> dict[str, str]:
                return answers(started, [request(tokenizer, name, settings=sampling, seed=seed) for name in group])

            first, again, other = sample(1), sample(1), sample(2)
            assert first == again, f"seed 1 gave {first}, then {again}: seed your sampler with request.seed"
            assert first != other, f"seeds 1 and 2 both gave {first}: seed your sampler with request.seed"

    def test_a_batch_of_different_lengths_answers_as_one_by_one(
        self, started: Engine, requests: list[GenerationRequest]
    ) -> None:
        found = answers(started, requests)
        assert found == ANSWERS, f"a batch gave {found}, one by one {ANSWERS}: mask the padding of shorter prompts"


def request(
    tokenizer: Any,
    prompt: str,
    *,
    settings: GenerationSection = GREEDY,
    stop_words: Sequence[str] = (),
    seed: int | None = None,
) -> GenerationRequest:
    """Return a request whose id is the prompt and that the tokenizer's end-of-sequence token ends."""
    return GenerationRequest(
        id=prompt,
        input_ids=prompt_ids(tokenizer, prompt),
        settings=settings,
        stop_token_ids=[tokenizer.eos_token_id],
        stop_words=list(stop_words),
        seed=seed,
    )


def answer(engine: Engine, one: GenerationRequest) -> tuple[str, str | None]:
    """Return the text and the finish reason of one request alone."""
    return _collected(engine.generate([one]))[one.id]


def answers(engine: Engine, requests: Sequence[GenerationRequest]) -> dict[str, str]:
    """Return the texts of several requests together, by id."""
    found = _collected(engine.generate(requests))
    return {one.id: found[one.id][0] for one in requests}


def _collected(chunks: Iterator[Chunk]) -> dict[str, tuple[str, str | None]]:
    found: dict[str, tuple[str, str | None]] = {}
    for chunk in chunks:
        text, reason = found.get(chunk.id, ("", None))
        found[chunk.id] = (text + chunk.text, chunk.finish_reason or reason)
    return found


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Return the ids of a prompt: a start token, its bytes and a line break."""
    ids: list[int] = tokenizer(prompt + "\n")["input_ids"]
    return [tokenizer.bos_token_id, *ids]


def teach(model: Any, tokenizer: Any) -> None:
    """Train until greedy decoding gives every answer of `ANSWERS`, with its end-of-sequence token."""
    torch.manual_seed(0)
    rows = [(prompt_ids(tokenizer, prompt), tokenizer(text)["input_ids"]) for prompt, text in ANSWERS.items()]
    longest = max(len(prompt) + len(text) for prompt, text in rows) + 1
    ids = torch.full((len(rows), longest), tokenizer.eos_token_id)
    labels = torch.full_like(ids, -100)
    for number, (prompt, text) in enumerate(rows):
        end = len(prompt) + len(text) + 1
        ids[number, : end - 1] = torch.tensor(prompt + text)
        labels[number, len(prompt) : end] = ids[number, len(prompt) : end]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05, f"the tiny model did not learn its answers (loss {loss.item():.3f})"
