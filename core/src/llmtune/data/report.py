"""The data report: every row that does not reach training, counted, with the first examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 3


@dataclass(kw_only=True)
class DataReport:
    """Counts of one run's rows."""

    read: int = 0
    train: int = 0
    validation: int = 0
    tokens: int = 0
    target_tokens: int = 0
    truncated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first places it was seen."""

    def drop(self, reason: str, source: str, kind: str | None = None) -> None:
        """Count one row; `kind` groups reasons that differ in detail."""
        kind = kind or reason
        self.dropped[kind] += 1
        places = self.examples.setdefault(kind, [])
        if len(places) < _EXAMPLES:
            places.append(f"{source}: {reason}")

    def add(self, other: DataReport) -> None:
        """Add the counts of one dataset."""
        self.read += other.read
        self.dropped += other.dropped
        for kind, places in other.examples.items():
            self.examples[kind] = [*self.examples.get(kind, []), *places][:_EXAMPLES]

    @property
    def dropped_ratio(self) -> float:
        return sum(self.dropped.values()) / self.read if self.read else 0.0

    def lines(self) -> list[str]:
        """Return the report for the terminal."""
        first = f"rows: {self.read} read, {self.train} to train on, {self.validation} to validate"
        if self.target_tokens:
            first += f", {self.tokens} tokens of which {self.target_tokens} are targets"
        if self.truncated:
            first += f", {self.truncated} truncated"
        lines = [first]
        for kind, count in self.dropped.most_common():
            lines.append(f"dropped {count}: {kind}")
            lines += [f"    {place}" for place in self.examples[kind]]
        return lines

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "dropped": dict(self.dropped)}
