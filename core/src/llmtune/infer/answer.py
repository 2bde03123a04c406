"""Answer rows with an engine: one streaming, or many into a file."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from llmtune.errors import DataError
from llmtune.interfaces.engine import Chunk, Engine, GenerationRequest
from llmtune.interfaces.template import Template
from llmtune.specs import Message, Row
from llmtune.template.thinking import thoughts_apart

if TYPE_CHECKING:
    from llmtune.config.generation import GenerationSection


OWN_ADAPTER = "default-lora"
"""What SWIFT calls the adapter of --ckpt_dir among several."""


class Answerer:
    """An engine, the template of its model and the generation settings."""

    def __init__(
        self,
        engine: Engine,
        template: Template,
        settings: GenerationSection,
        *,
        stop_words: Sequence[str] = (),
        seed: int | None = None,
        max_length: int = -1,
        truncation: str = "delete",
    ) -> None:
        self.engine, self.template, self.settings = engine, template, settings
        self.stop_words = [*template.stop_words, *stop_words]
        self._seed = seed
        self.max_length, self.truncation = max_length, truncation

    def stream(self, row: Row, adapter: str | None = None) -> Iterator[Chunk]:
        """Yield the answer to the last user turn of `row`, piece by piece."""
        request = self._request("0", self.prompt(row), adapter)
        if self.template.answer_begin:
            yield Chunk(id=request.id, text=self.template.answer_begin)
        yield from self.engine.generate([request])

    def answers(self, prompts: Sequence[list[int]], adapter: str | None = None) -> list[str]:
        """Return the answers to several prompts, generated as one batch."""
        requests = [self._request(str(number), prompt, adapter) for number, prompt in enumerate(prompts)]
        texts = dict.fromkeys((request.id for request in requests), self.template.answer_begin)
        for chunk in self.engine.generate(requests):
            texts[chunk.id] += chunk.text
        return list(texts.values())

    def prompt(self, row: Row) -> list[int]:
        """Return the ids of a question; raise `DataError` for one that is longer than `max_length` and not cut."""
        ids = self.template.encode_prompt(thoughts_apart(row))
        if not 0 <= self.max_length < len(ids):
            return ids
        if self.truncation == "delete":
            raise DataError(
                f"the question has {len(ids)} tokens, --max_length is {self.max_length}",
                fix="raise --max_length, or --truncation_strategy truncation_left",
            )
        return ids[-self.max_length :]

    def _request(self, name: str, prompt: list[int], adapter: str | None) -> GenerationRequest:
        seed, self._seed = self._seed, None  # seeds the run, not every answer: a repeated question may vary
        return GenerationRequest(
            id=name,
            input_ids=prompt,
            settings=self.settings,
            stop_token_ids=self.template.stop_token_ids(),
            stop_words=self.stop_words,
            seed=seed,
            adapter=adapter,
        )


def answer_rows(
    answerer: Answerer,
    rows: Sequence[Row],
    result: Path | None,
    *,
    batch_size: int,
    verbose: bool = True,
    adapters: Sequence[str] = (),
) -> int:
    """Answer the last user turn of each row, batch by batch, and write one JSON line per row into `result`.

    With more `adapters` than the checkpoint's own each of them answers too, on a line with its name. `verbose`
    prints each question and answer, otherwise there is a progress bar. Returns how many rows were answered; one that
    cannot be asked is left out, with a line that says why. None at all is a `DataError`.
    """
    asked = list(_questions(answerer, rows))
    if not asked:
        raise DataError("no row can be asked", fix="the lines above say why")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(result.open("w", encoding="utf-8")) if result else None
        bar = stack.enter_context(tqdm(total=len(asked), unit="row", disable=verbose))
        for start in range(0, len(asked), batch_size):
            batch = asked[start : start + batch_size]
            names = (None, *adapters)
            by_adapter = [answerer.answers([prompt for _, prompt in batch], name) for name in names]
            for (row, _), *responses in zip(batch, *by_adapter, strict=True):
                lines = [result_line(row, response) for response in responses]
                for name, line in zip(names, lines, strict=True) if adapters else ():
                    line["adapter"] = name or OWN_ADAPTER
                if file:
                    file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                if verbose:
                    print(_shown(lines), flush=True)
            bar.update(len(batch))
            if file:
                file.flush()
    return len(asked)


def _shown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return one question with the answer to it, or those of several adapters."""
    titles = [f"response of {line['adapter']}" if "adapter" in line else "response" for line in lines]
    answers = [f"[{title}] {line['response']}" for title, line in zip(titles, lines, strict=True)]
    label = lines[0]["label"]
    return "\n".join([f"[query] {lines[0]['query']}", *answers, "" if label is None else f"[label] {label}\n"])


def _questions(answerer: Answerer, rows: Sequence[Row]) -> Iterator[tuple[Row, list[int]]]:
    """Yield each row with the ids of its question."""
    for row in rows:
        try:
            yield row, answerer.prompt(question(row))
        except DataError as error:
            print(f"warning: left out {row.get('source', 'a row')}: {error.problem}", file=sys.stderr)


def question(row: Row) -> Row:
    """Return the row without its last answer."""
    turns = row["messages"]
    return {**row, "messages": turns[:-1] if turns[-1]["role"] == "assistant" else turns}


def result_line(row: Row, response: str) -> dict[str, Any]:
    """Return SWIFT's result layout: query, response, label, history, system, and where the row came from.

    A conversation with tools has no history of pairs: it stands in `messages`, as rows have it.
    """
    turns = row["messages"]
    asked = question(row)["messages"]
    line: dict[str, Any] = {
        "query": asked[-1]["content"],
        "response": response,
        "label": _label(turns[-1]) if len(asked) < len(turns) else None,
        "history": [],
        "system": row.get("system"),
        "source": row.get("source"),
    }
    earlier = [(turn["role"], turn["content"]) for turn in asked[:-1]]
    if all(turn["role"] in ("user", "assistant") and not turn.get("tool_calls") for turn in asked):
        pairs = zip(earlier[::2], earlier[1::2], strict=True)
        line["history"] = [[query, answer] for (_, query), (_, answer) in pairs]
    else:
        line["messages"] = asked
    return line


def _label(answer: Message) -> str:
    """Return what the row answers: its text, or where it is nothing but calls, these as JSON."""
    calls = [call["function"] for call in answer.get("tool_calls", [])]
    return answer["content"] if answer["content"] or not calls else json.dumps(calls, ensure_ascii=False)
