"""The data report: every row that does not reach training, counted, with the first examples."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmtune.data.histogram import draw_lengths, summary, text_histogram
from llmtune.errors import DataError

Strategy = Literal["none", "warning", "discard", "error"]
_EXAMPLES = 3


@dataclass(kw_only=True)
class DataReport:
    """Counts of one run's rows."""

    strategy: Strategy = "none"
    """What happens to rows that a strict check finds odd, and to those that cannot be used."""
    read: int = 0
    train: int = 0
    validation: int = 0
    tokens: int = 0
    target_tokens: int = 0
    truncated: int = 0
    parted: int = 0
    """Rows that are several samples (`parts` together): one for each answer, or of a text that was split."""
    parts: int = 0
    duplicates: int = 0
    """Training rows with the same content as one before them; they stay."""
    dropped: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    """Rows that a strict check found odd and that stay."""
    control_names: Counter[str] = field(default_factory=Counter)
    """Name of a control token -> rows that have it in a text. It stays text (--special_tokens_in_text)."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first places it was seen."""
    unused: dict[str, list[str]] = field(default_factory=dict)
    """Dataset -> columns that play no role."""
    lengths: array[int] = field(default_factory=lambda: array("i"))
    """Tokens of each row, before anything is cut off."""
    seen: set[int] = field(default_factory=set)
    """Hashes of the rows so far, where a strict check looks for copies."""

    def drop(self, reason: str, source: str, kind: str | None = None) -> None:
        """Count one row that cannot be used; `kind` groups reasons that differ in detail."""
        self._note(self.dropped, kind or reason, reason, source)
        if self.strategy == "error":
            fix = "mend or remove the row, or choose another --check_dataset_strategy"
            raise DataError(f"{source}: {reason}", fix=fix)

    def read_late(self, reason: str, source: str, *, limit: int) -> None:
        """Count a row that turned out to be unusable while the model trained; more than `limit` are an error."""
        self.drop(reason, source)
        if self.strategy == "none" and sum(self.dropped.values()) > limit:
            fix = "\n  ".join([*self.dropped_lines(), "mend the rows, raise --max_dropped_ratio"])
            raise DataError(f"more than {limit} rows cannot be used, which is what --max_dropped_ratio allows", fix=fix)

    def object_to(self, reason: str, source: str) -> bool:
        """Count one row that a strict check finds odd; return whether it is left out."""
        if self.strategy == "warning":
            self._note(self.odd, reason, reason, source)
            return False
        self.drop(reason, source)
        return True

    def spelled_out(self, name: str, source: str) -> None:
        """Count a row with the name of a control token in a text."""
        self._note(self.control_names, name, name, source)

    def seen_before(self, line: bytes) -> str | None:
        """Return what is odd about a row that came before, None for a new one."""
        number = hash(line)
        if number in self.seen:
            return "the same row came before"
        self.seen.add(number)
        return None

    def _note(self, counter: Counter[str], kind: str, reason: str, source: str) -> None:
        counter[kind] += 1
        places = self.examples.setdefault(kind, [])
        if len(places) < _EXAMPLES or self.strategy == "warning":
            places.append(source if reason == kind else f"{source}: {reason}")

    def add(self, other: DataReport) -> None:
        """Add the counts of one dataset."""
        self.read += other.read
        self.dropped += other.dropped
        self.odd += other.odd
        self.unused |= other.unused
        for kind, places in other.examples.items():
            shown = [*self.examples.get(kind, []), *places]
            self.examples[kind] = shown if self.strategy == "warning" else shown[:_EXAMPLES]

    @property
    def dropped_ratio(self) -> float:
        return sum(self.dropped.values()) / self.read if self.read else 0.0

    def check_dropped(self, limit: float) -> None:
        """Raise `DataError` when more rows were dropped than `--max_dropped_ratio` allows.

        A user who chose to discard them, or to be warned only, has said so.
        """
        if self.strategy in ("none", "error") and self.dropped_ratio > limit:
            raise DataError(
                f"{self.dropped_ratio:.1%} of the rows cannot be used, --max_dropped_ratio allows {limit:.1%}",
                fix="\n  ".join(
                    [
                        *self.dropped_lines(),
                        *self._about_length(),
                        "mend the rows, raise --max_dropped_ratio, or --check_dataset_strategy discard",
                    ]
                ),
            )

    def _about_length(self) -> list[str]:
        too_long = "longer than --max_length" in self.dropped
        return ["raise --max_length, or --truncation_strategy truncation_right"] if too_long else []

    def lines(self, *, histogram: bool = False) -> list[str]:
        """Return the report for the terminal."""
        first = f"rows: {self.read} read, {self.train} to train on, {self.validation} to validate"
        if self.target_tokens:
            first += f", {self.tokens} tokens of which {self.target_tokens} are targets"
        if self.truncated:
            first += f", {self.truncated} truncated"
        lines = [first, *self.dropped_lines()]
        if self.parted:
            lines.append(f"{self.parted} rows became {self.parts} samples")
        if self.duplicates:
            lines.append(f"{self.duplicates} training rows are copies of others")
        lines += [
            f"{name}: no use was found for the columns {', '.join(unused)}" for name, unused in self.unused.items()
        ]
        for name, count in self.control_names.most_common():
            named = f"{name} stands in the text of {count} rows and is spelled out there, no control token"
            lines += [
                f"{named} (--special_tokens_in_text)",
                *(f"    {place}" for place in self.examples[name][:_EXAMPLES]),
            ]
        return [*lines, *text_histogram(self.lengths)] if histogram else lines

    def dropped_lines(self) -> list[str]:
        """Return what was left out or found odd, with the places."""
        lines = []
        for what, counter in (("dropped", self.dropped), ("odd but kept", self.odd)):
            for kind, count in counter.most_common():
                lines += [f"{what} {count}: {kind}", *(f"    {place}" for place in self.examples[kind])]
        return lines

    def as_json(self) -> dict[str, Any]:
        values = {name: value for name, value in vars(self).items() if name not in ("lengths", "seen")}
        counted = {name: dict(value) for name, value in values.items() if isinstance(value, Counter)}
        return {**values, **counted, "length": summary(self.lengths)}

    def draw(self, folder: Path) -> Path | None:
        """Draw the token lengths into `folder`/images; return the file, None where there are none."""
        return draw_lengths(self.lengths, folder / "images" / "token_lengths.png") if self.lengths else None
