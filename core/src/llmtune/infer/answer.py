"""Answer rows with an engine: one streaming, or many into a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from llmtune.interfaces.engine import Chunk, Engine, GenerationRequest
from llmtune.interfaces.template import Template
from llmtune.specs import Row

if TYPE_CHECKING:
    from llmtune.config.generation import GenerationSection


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
    ) -> None:
        self.engine, self.template, self.settings = engine, template, settings
        self.stop_words = [*template.stop_words, *stop_words]
        self._seed = seed

    def stream(self, row: Row) -> Iterator[Chunk]:
        """Yield the answer to the last user turn of `row`, piece by piece."""
        return self.engine.generate([self._request("0", row)])

    def answers(self, rows: Sequence[Row]) -> list[str]:
        """Return the answers to several rows, generated as one batch."""
        requests = [self._request(str(number), row) for number, row in enumerate(rows)]
        texts = dict.fromkeys((request.id for request in requests), "")
        for chunk in self.engine.generate(requests):
            texts[chunk.id] += chunk.text
        return list(texts.values())

    def _request(self, name: str, row: Row) -> GenerationRequest:
        seed, self._seed = self._seed, None  # seeds the run, not every answer: a repeated question may vary
        return GenerationRequest(
            id=name,
            input_ids=self.template.encode_prompt(row),
            settings=self.settings,
            stop_token_ids=self.template.stop_token_ids(),
            stop_words=self.stop_words,
            seed=seed,
        )


def answer_rows(
    answerer: Answerer, rows: Sequence[Row], result: Path | None, *, batch_size: int, verbose: bool = True
) -> None:
    """Answer the last user turn of each row, batch by batch, and write one JSON line per row into `result`.

    `verbose` prints each question and answer, otherwise there is a progress bar.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(result.open("w", encoding="utf-8")) if result else None
        bar = stack.enter_context(tqdm(total=len(rows), unit="row", disable=verbose))
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            for row, response in zip(batch, answerer.answers([_question(row) for row in batch]), strict=True):
                line = result_line(row, response)
                if file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if verbose:
                    label = "" if line["label"] is None else f"[label] {line['label']}\n"
                    print(f"[query] {line['query']}\n[response] {response}\n{label}", flush=True)
            bar.update(len(batch))
            if file:
                file.flush()


def _question(row: Row) -> Row:
    turns = row["messages"]
    return {**row, "messages": turns[:-1] if turns[-1]["role"] == "assistant" else turns}


def result_line(row: Row, response: str) -> dict[str, Any]:
    """Return SWIFT's result layout: query, response, label, history, system, and where the row came from."""
    turns = row["messages"]
    label = turns[-1]["content"] if turns[-1]["role"] == "assistant" else None
    asked = turns[:-1] if label is not None else turns
    history = [turn["content"] for turn in asked[:-1]]
    return {
        "query": asked[-1]["content"],
        "response": response,
        "label": label,
        "history": [list(pair) for pair in zip(history[::2], history[1::2], strict=True)],
        "system": row.get("system"),
        "source": row.get("source"),
    }
