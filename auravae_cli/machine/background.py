"""Run long work in a thread, so that a signal ends the wait for it at once.

Python handles signals between two instructions of the main thread; a library's call may take minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
_running: list[threading.Event] = []  # of work that is awaited or abandoned: set when it has ended
_INTERVAL = 0.2  # seconds: on some systems, only a wait with an end lets signals through


def in_background(work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns, or raise what it raises.

    An exception that a signal's handler raises meanwhile ends the wait. The thread does not keep the
    program from ending; whatever it writes must be atomic.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    ended = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again where the result is awaited
            errors.append(error)
        finally:
            ended.set()

    _running.append(ended)
    threading.Thread(target=run, daemon=True).start()
    # Not Thread.join: interrupted, it takes a thread that runs for one that has ended (Python 3.11).
    while not ended.wait(_INTERVAL):
        pass
    _running.remove(ended)
    if errors:
        raise errors[0]
    return results[0]


def is_work_abandoned() -> bool:
    """Return whether a wait was ended, and its thread still computes."""
    return not all(ended.is_set() for ended in _running)
