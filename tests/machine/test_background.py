"""Work in a thread, and signals that end the wait for it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from auravae_cli.machine.background import in_background, is_work_abandoned


def test_results_and_errors_come_back() -> None:
    assert in_background(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0)
    assert not is_work_abandoned()


def test_an_interrupt_ends_the_wait_and_the_work_is_known_to_go_on() -> None:
    """Joining the thread said that it had ended: the program then ended under it, with SIGABRT."""
    may_end = threading.Event()

    def work() -> None:
        time.sleep(0.1)  # until the wait has begun
        os.kill(os.getpid(), signal.SIGINT)
        may_end.wait(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        with pytest.raises(KeyboardInterrupt):
            in_background(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert is_work_abandoned()
    may_end.set()
    until = time.monotonic() + 30
    while is_work_abandoned() and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_work_abandoned()
