"""Stop training politely on Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


class StopRequest:
    """Whether the user asked to stop; a training loop looks at it after each step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one interrupts at once."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number
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
