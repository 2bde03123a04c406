"""Stop training politely on Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from llmtune.train import ranks


class StopRequest:
    """Whether the user asked to stop; a training loop looks at it after each step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. Called by every rank after the same step, so that all stop there."""
        self.signal = ranks.largest(self.signal or 0) or None
        return bool(self)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one interrupts at once."""
    request = StopRequest()
    received = False  # by this process: the others may have told it to stop before its own signal arrives

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            raise KeyboardInterrupt
        received, request.signal = True, number
        print("\nstopping after this step and saving; once more quits at once", file=sys.stderr, flush=True)

    previous: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not the main thread: whoever owns it handles signals
            previous[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
