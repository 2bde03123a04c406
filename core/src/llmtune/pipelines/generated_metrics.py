"""Answers to the validation rows while the model is trained, and what is measured of them (--predict_with_generate)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llmtune.config.commands import SftConfig
from llmtune.config.generation import GenerationSection
from llmtune.data.spool import Selection
from llmtune.errors import DataError, LlmtuneError, OutputError, PluginFailed
from llmtune.infer.answer import Answerer, question
from llmtune.interfaces.metric import Metric
from llmtune.interfaces.template import Template
from llmtune.pipelines.prepare import Prepared
from llmtune.specs import Row
from llmtune.train import ranks
from llmtune.train.aside import set_aside

FOLDER = "generations"
"""Folder in the run folder with one file for each evaluation."""


def questions(prepared: Prepared[SftConfig], rows: Selection | None, template: Template) -> Sequence[Row]:
    """Return those of the validation rows that can be answered, and say why others cannot; none is a `DataError`."""
    if rows is None:
        return ()
    answerer = new_answerer(prepared, template)
    problems = [_problem(row, answerer) for row in rows]
    kept = rows.take([number for number, problem in enumerate(problems) if problem is None])
    left_out = [problem for problem in problems if problem is not None]
    if not kept:
        raise DataError(
            "--predict_with_generate: no validation row can be answered" + (f" ({left_out[0]})" if left_out else ""),
            fix="give rows with --val_dataset, or raise --dataset_test_ratio",
        )
    if left_out:
        prepared.run.say(f"{len(left_out)} of {len(rows)} validation rows are not answered ({left_out[0]})")
    return kept


def _problem(row: Row, answerer: Answerer) -> str | None:
    """Return why a row cannot be answered, or its answer not be measured."""
    turns, source = row["messages"], row.get("source", "a row")
    if len(turns) < 2 or turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        return f"{source}: it needs a question and an answer in text"
    try:
        answerer.prompt(question(row))
    except DataError as error:
        return f"{source}: {error.problem}"
    return None


def new_answerer(prepared: Prepared[SftConfig], template: Template) -> Answerer:
    """Return what asks a model: each evaluation has a new one, whose samples begin with the same random numbers."""
    config = prepared.config
    return Answerer(
        prepared.provide("llmtune_create_engine", "engine"),
        template,
        config.generation,
        seed=config.training.seed + prepared.run.rank,
        max_length=config.template.max_length,
        truncation=config.template.truncation_strategy,
    )


def generated_metrics(
    prepared: Prepared[SftConfig], rows: Sequence[Row], template: Template, tokenizer: Any, folder: Path
) -> GeneratedMetrics | None:
    """Return what a backend calls at each evaluation, None where answers are not asked for."""
    if not rows:
        return None
    config = prepared.config
    return GeneratedMetrics(
        rows=rows,
        new_answerer=lambda: new_answerer(prepared, template),
        tokenizer=tokenizer,
        metric=prepared.provide("llmtune_create_metric", "metric"),
        metric_name=prepared.choices.behaviours["metric"].qualified,
        batch_size=config.evaluation.eval_batch_size or 1,
        folder=folder / FOLDER,
        rank=prepared.run.rank,
        world_size=prepared.run.world_size,
        show=ranks.is_first() and not config.tracking.disable_tqdm,
    )


@dataclass(frozen=True, kw_only=True)
class GeneratedMetrics:
    """Called with the model and the step on every rank; returns the same values on each."""

    rows: Sequence[Row]
    new_answerer: Callable[[], Answerer]
    tokenizer: Any
    metric: Metric
    metric_name: str
    batch_size: int
    folder: Path
    rank: int
    world_size: int
    show: bool

    @property
    def best(self) -> tuple[str, bool]:
        """The logged value that tells the best checkpoint, and whether higher is better."""
        return f"eval_{self.metric.best}", self.metric.higher_is_better

    def __call__(self, model: Any, step: int) -> dict[str, float]:
        answerer = self.new_answerer()
        with set_aside(model), closing(answerer.engine):
            answerer.engine.start(model, self.tokenizer)
            mine = list(self._answers(answerer, model))
        parts = ranks.gather_objects(mine)
        return ranks.share(lambda: self._measured(_in_turn(parts, len(self.rows)), step))

    def _answers(self, answerer: Answerer, model: Any) -> Iterator[str]:
        """Yield the answers to this rank's share of the rows."""
        numbers, settings = share(len(self.rows), self.rank, self.world_size), answerer.settings
        with tqdm(total=len(numbers), desc="answers", unit="row", disable=not self.show, leave=False) as bar:
            for start in range(0, len(numbers), self.batch_size):
                batch = numbers[start : start + self.batch_size]
                prompts = [answerer.prompt(question(self.rows[number])) for number in batch]
                answerer.settings = _within_positions(settings, model, max(map(len, prompts)))
                yield from answerer.answers(prompts)
                bar.update(len(batch))

    def _measured(self, responses: Sequence[str], step: int) -> dict[str, float]:
        """Write the answers of all ranks into a file and measure them."""
        labels = [row["messages"][-1]["content"] for row in self.rows]
        self._write(responses, labels, self.folder / f"step-{step}.jsonl")
        try:
            values = self.metric.measure(responses, labels)
        except LlmtuneError:
            raise
        except Exception as error:
            raise PluginFailed(f"metric {self.metric_name} failed: {type(error).__name__}: {error}") from error
        if self.metric.best not in values:
            found = ", ".join(values) or "nothing"
            raise PluginFailed(f"metric {self.metric_name} measured {found}, and not its `best`: {self.metric.best}")
        return values

    def _write(self, responses: Sequence[str], labels: Sequence[str], path: Path) -> None:
        lines = [
            {
                "query": row["messages"][-2]["content"],
                "response": response,
                "label": label,
                "source": row.get("source"),
            }
            for row, response, label in zip(self.rows, responses, labels, strict=True)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}", fix="free some space") from error


def share(rows: int, rank: int, world_size: int) -> list[int]:
    """Return the numbers of the rows that a rank answers.

    All ranks have equally many, because a model whose weights are spread over them computes together: at the end of
    the others' shares some row is answered once more, and the answer not used.
    """
    mine = list(range(rank, rows, world_size))
    return mine + [0] * (-(-rows // world_size) - len(mine))


def _in_turn(parts: Sequence[Sequence[str]], rows: int) -> list[str]:
    """Return the answers in the order of the rows."""
    return [parts[number % len(parts)][number // len(parts)] for number in range(rows)]


def _within_positions(settings: GenerationSection, model: Any, prompt: int) -> GenerationSection:
    """Return settings that end an answer where the model has no more positions."""
    most = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    if prompt + settings.max_new_tokens <= most:
        return settings
    return settings.model_copy(update={"max_new_tokens": max(1, most - prompt)})
