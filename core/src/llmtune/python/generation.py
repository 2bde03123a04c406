"""Answers from Python: `inference(model, template, query)`, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from llmtune.config.build import make_section
from llmtune.config.flags import check_names
from llmtune.config.generation import GenerationSection
from llmtune.infer.answer import Answerer
from llmtune.interfaces.engine import Engine
from llmtune.plugins.registration import check_form
from llmtune.python.session import Session
from llmtune.python.templates import ExampleTemplate
from llmtune.specs import Row

Pairs = Sequence[tuple[str, str] | list[str]]
History = list[tuple[str, str]]


def inference(
    model: Any,
    template: ExampleTemplate,
    query: str,
    history: Pairs | None = None,
    system: str | None = None,
    *,
    stop_words: Sequence[str] = (),
    seed: int | None = None,
    **generation: Any,
) -> tuple[str, History]:
    """Return (response, history with the new pair). `generation` are flags such as `max_new_tokens=100`."""
    answer = ""
    for response, _ in inference_stream(
        model, template, query, history, system, stop_words=stop_words, seed=seed, **generation
    ):
        answer = response
    return answer, [*_past(history), (query, answer)]


def inference_stream(
    model: Any,
    template: ExampleTemplate,
    query: str,
    history: Pairs | None = None,
    system: str | None = None,
    *,
    stop_words: Sequence[str] = (),
    seed: int | None = None,
    **generation: Any,
) -> Iterator[tuple[str, History]]:
    """Yield (response so far, history with it) as the model writes; arguments are checked at once."""
    check_form("template", template, ExampleTemplate, "what get_template(...) returns")
    check_names(generation, GenerationSection.model_fields, "infer")
    settings = make_section(GenerationSection, generation)
    row = template.row({"query": query, "history": history, "system": system})
    past = _past(history)
    answering = {"stop_words": stop_words, "seed": seed}
    return _stream(model, template, row, past, settings, answering)


def _stream(
    model: Any, template: ExampleTemplate, row: Row, past: History, settings: Any, answering: dict[str, Any]
) -> Iterator[tuple[str, History]]:
    query, response = row["messages"][-1]["content"], ""
    session = Session.start()
    entry = session.find("engine", "pt")
    engine: Engine = session.manager.provide(
        "llmtune_create_engine", entry, name=entry.name, options=session.options(entry, {}), run=session.run
    )
    with closing(engine):
        engine.start(model, template.tokenizer)
        for chunk in Answerer(engine, template.template, settings, **answering).stream(row):
            response += chunk.text
            yield response, [*past, (query, response)]


def _past(history: Pairs | None) -> History:
    return [(query, response) for query, response in history or []]
