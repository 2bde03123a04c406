"""How fast a run is, and what it takes: shown while it trains, and never logged, because two runs differ in it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass
class Speed:
    """Counts the tokens and seconds of steps; evaluations and checkpoints are not part of them."""

    leave_out: float = 0
    """Steps at the start that are not counted; below 1: their share of all."""
    tokens: int = 0
    padded: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    seen: int = 0
    _started: float = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._started = time.perf_counter()

    def end(self, tokens: int, padding: float, *, steps: int) -> None:
        """A step of a run of `steps` is over; `padding` is the share of what was computed for it."""
        self.seen += 1
        if self.seen <= (self.leave_out if self.leave_out >= 1 else self.leave_out * steps):
            return
        self.steps += 1
        self.tokens, self.padded = self.tokens + tokens, self.padded + padding
        self.seconds += time.perf_counter() - self._started

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def padding(self) -> float:
        """Share of what was computed that is padding, over the steps."""
        return self.padded / self.steps if self.steps else 0.0

    def metrics(self) -> dict[str, float]:
        """Return what is told of a whole run."""
        if not self.seconds:
            return {}
        memory = peak_memory() / 1e9
        return {"tokens_per_second": self.tokens_per_second, "padding": self.padding, "memory_gb": memory}

    def shown(self, steps_left: int) -> dict[str, str]:
        """Return name -> text for a status line."""
        if not self.seconds:
            return {}
        left = int(steps_left * self.seconds / self.steps)
        return {
            "tokens/s": f"{self.tokens_per_second:.0f}",
            "padding": f"{self.padding:.0%}",
            "memory": f"{peak_memory() / 1e9:.1f} GB",
            "left": f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}",
        }


def peak_memory() -> int:
    """Return the most bytes in use so far: of this process's GPU, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    import psutil

    information = psutil.Process().memory_info()
    return int(getattr(information, "peak_wset", 0)) or _peak_of_a_process()


def _peak_of_a_process() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
