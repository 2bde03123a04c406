"""logging.jsonl: one line per logged step; and its curves as PNG."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from llmtune.errors import OutputError
from llmtune.train.checkpoint import newest

FILENAME = "logging.jsonl"


class JsonlLog:
    """Callback that appends every logged value with its step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILENAME

        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            cut_log(folder, sys.maxsize)  # a killed process left half a line

    def on_log(self, step: int, values: dict[str, float]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror}",
                fix=f"free some space; last complete checkpoint: {newest(self.path.parent) or 'none'}",
            ) from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the logged lines in order; a line cut short by a kill is left out."""
    path = folder / FILENAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [values for line in lines if (values := _parsed(line)) is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return values


def cut_log(folder: Path, step: int) -> None:
    """Drop what was logged after `step`: a run resumed from there logs it again."""
    if not (folder / FILENAME).exists():
        return
    kept = [line for line in read_log(folder) if line["step"] <= step]
    partial = folder / f".{FILENAME}.partial"  # a kill leaves the log as it was
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    partial.replace(folder / FILENAME)


def draw_curves(folder: Path) -> list[Path]:
    """Draw every logged value over the steps into `images/`; return the files."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in read_log(folder):
        for name, value in line.items():
            if name not in ("step", "epoch") and isinstance(value, int | float):
                series[name].append((line["step"], value))
    (folder / "images").mkdir(exist_ok=True)
    return [
        _draw(folder / "images" / f"{name.replace('/', '_')}.png", name, points)
        for name, points in series.items()
        if len(points) > 1
    ]


def _draw(path: Path, name: str, points: list[tuple[int, float]]) -> Path:
    # The object interface of matplotlib: pyplot would choose a backend and keep global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None)
    axes.set(xlabel="step", title=name)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return path
