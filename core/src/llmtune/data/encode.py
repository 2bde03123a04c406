"""Encode rows with a template, counting what cannot be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from llmtune.data.report import DataReport
from llmtune.errors import DataError
from llmtune.interfaces.template import Template
from llmtune.specs import Encoded, Row


def encode_rows(
    rows: Sequence[Row], template: Template, *, max_length: int, truncation: str, report: DataReport
) -> list[Encoded]:
    """Return the encoded rows that fit. `max_length` -1 means no limit."""
    encoded = []
    for row in rows:
        try:
            one = template.encode(row)
        except DataError as error:
            report.drop(error.problem, row["source"])
            continue
        length = len(one["input_ids"])
        if 0 <= max_length < length:
            if truncation == "delete":
                report.drop(
                    f"{length} tokens, --max_length is {max_length}", row["source"], kind="longer than --max_length"
                )
                continue
            report.truncated += 1
            one = _cut_left(one, max_length)
        targets = sum(label != -100 for label in one["labels"])
        if targets == 0:
            report.drop("no target token left after truncation", row["source"])
            continue
        report.tokens += len(one["input_ids"])
        report.target_tokens += targets
        encoded.append(one)
    return encoded


def _cut_left(row: Encoded, length: int) -> Encoded:
    cut: Encoded = {"input_ids": row["input_ids"][-length:], "labels": row["labels"][-length:]}
    if "loss_weights" in row:
        cut["loss_weights"] = row["loss_weights"][-length:]
    return cut


def check_dropped(report: DataReport, limit: float) -> None:
    """Raise `DataError` when more rows were dropped than `--max_dropped_ratio` allows."""
    if report.dropped_ratio > limit:
        raise DataError(
            f"{report.dropped_ratio:.1%} of the rows cannot be trained on, --max_dropped_ratio allows {limit:.1%}",
            fix="\n  ".join([*report.lines()[1:], "mend the rows, or raise --max_dropped_ratio"]),
        )
