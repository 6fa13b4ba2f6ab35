"""End a long run by signals at a point that suits the run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(threading.Event):
    """Set by a signal, which can act later."""

    number = 0

    def act(self) -> None:
        """Let the signal act as it does outside of `stopping`."""
        signal.raise_signal(self.number)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Yield an event that the first SIGINT or SIGTERM sets. A second one acts at once, as usual."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.number = number
        stop.set()
        restore()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()
