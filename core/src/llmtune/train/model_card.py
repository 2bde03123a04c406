"""README.md of an uploaded model: what it was made from and how. No token and no path of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the page says of every checkpoint of a run."""

    title: str
    base: str
    """Name of the base model."""
    base_id: str | None = None
    """Its repository on the hub."""
    tuner: str
    datasets: Sequence[str]
    dataset_ids: Sequence[str] = ()
    """Their repositories on the hub, of those that it has."""
    packages: Sequence[str]
    """Distributions that answering needs."""
    settings: Mapping[str, Any]
    """Flag -> value of those that shaped the training."""

    def text(self, measured: Mapping[str, Any] | None = None) -> str:
        """Return the page; `measured` is what was measured of this checkpoint."""
        base = self.base if self.base_id in (None, self.base) else f"{self.base} ({self.base_id})"
        rows = {"base model": base, "tuner": self.tuner, "datasets": ", ".join(self.datasets) or "unknown"}
        parts = [
            f"---\n{yaml.safe_dump(self._links(), allow_unicode=True, sort_keys=False)}---",
            f"# {self.title}",
            _table(rows),
            *([f"## This checkpoint\n\n{_table(measured)}"] if measured else []),
            f"## Training\n\n{_table(self.settings)}",
            f"## Use\n\nDownload this repository into a folder, then:\n\n```\npip install {' '.join(self.packages)}\n"
            "llmtune infer --ckpt_dir FOLDER\n```",
        ]
        return "\n\n".join(parts) + "\n"

    def _links(self) -> dict[str, Any]:
        """Return the fields that hubs read."""
        links: dict[str, Any] = {"base_model": self.base_id} if self.base_id else {}
        links |= {"datasets": list(self.dataset_ids)} if self.dataset_ids else {}
        return {**links, "tags": ["llmtune", self.tuner]}


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _cell(value: Any) -> str:
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return shown.replace("|", "\\|").replace("\n", " ")
