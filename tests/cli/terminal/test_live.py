"""The line that says how far a run is: on a terminal it moves, in a log it comes now and then."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from auravae_cli.cli.terminal import live as module
from auravae_cli.cli.terminal.live import Live, Pace


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def quickly(monkeypatch):
    """Waits of milliseconds."""
    for name in ("FIRST_SECONDS", "LOG_SECONDS", "_INTERVAL"):
        monkeypatch.setattr(module, name, 0.01)


@pytest.fixture
def stderr(monkeypatch):
    """Make standard error a log or a terminal, from within a test."""

    def make(kind):
        stream = kind()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    monkeypatch.setenv("COLUMNS", "80")
    return make


def until(condition):
    """Wait for what another thread does."""
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        time.sleep(0.005)
    assert condition()


def test_a_log_gets_a_line_now_and_then(quickly, stderr):
    log = stderr(io.StringIO)
    with Live("loading small") as live:
        until(lambda: "loading small, " in log.getvalue())
        live.begin("encoding a\x1b[2Jb.jpg")
        live.items, live.of, live.more = 3, 25, "1 failed"
        live.pace = Pace(total=25, done=3, begun=time.monotonic() - 30)
        until(
            lambda: (
                "a\\x1b[2Jb.jpg, 3 of 25, 0.1/s, 1 failed, about 3 min 40 s left" in log.getvalue()
            )
        )
    assert re.fullmatch(r"[ -~\n]*", log.getvalue())  # no control characters


def test_a_terminal_gets_a_line_that_moves_and_goes(quickly, stderr):
    log = stderr(Terminal)
    with Live("loading small") as live:
        until(lambda: "loading small" in log.getvalue())
        live.begin("encoding coffee.jpg", 20.0)
        live.in_seconds, live.pace.total = True, 20.0
        until(lambda: re.search(r"coffee.jpg.*about (20|19) s left", log.getvalue()))
    assert log.getvalue().endswith("\x1b[2K")  # erased


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_what_ends_at_once_or_is_hidden_shows_nothing(stderr, quickly, monkeypatch, kind):
    log = stderr(kind)
    with Live("nothing", hidden=True):
        time.sleep(0.05)
    monkeypatch.setattr(module, "FIRST_SECONDS", 5.0)
    monkeypatch.setattr(module, "LOG_SECONDS", 5.0)
    started = time.monotonic()
    with Live("quick"):
        pass
    assert log.getvalue() == "" and time.monotonic() - started < 1


def test_time_left_is_predicted_first_and_then_by_the_pace():
    pace = Pace(total=100.0, begun=0.0, expected=10.0, batch_begun=0.0)
    assert pace.left(5.0, True) == 95.0 and pace.fraction(5.0) == 0.05
    assert pace.left(5.0, False) is None  # items tell nothing before one is done
    assert pace.left(120.0, True) is None  # longer than predicted: no number is true
    pace.done, pace.expected = 50.0, None
    assert pace.left(100.0, True) == 100.0  # half as fast as predicted
    assert Pace().fraction(1.0) is None


def test_no_batch_is_taken_for_done_before_it_is():
    pace = Pace(total=10.0, begun=0.0, expected=10.0, batch_begun=0.0)
    assert pace.fraction(60.0) == 0.95
