"""What is being done: on a terminal a line that moves, in a log a line now and then.

A thread draws it, so that it moves while the main one computes. Nothing is shown of what ends at once.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from auravae_cli.cli.terminal.lines import inert, progress, say

if TYPE_CHECKING:
    from rich.progress import Progress

FIRST_SECONDS = 0.4  # until something is shown on a terminal
LOG_SECONDS = 60.0  # between two lines in a log
_INTERVAL = 0.2
_NAME_WIDTH = 38


@dataclass
class Pace:
    """How far a run is, in units of predicted seconds where those are known, else in items.

    ``begun`` is the monotonic time at which the work began, without what comes before it.
    """

    total: float = 0.0
    done: float = 0.0
    expected: float | None = None  # of the present batch
    begun: float = field(default_factory=time.monotonic)
    batch_begun: float = field(default_factory=time.monotonic)

    def fraction(self, now: float) -> float | None:
        """Return the part that is done; None if it is unknown."""
        if self.total <= 0:
            return None
        return min(1.0, (self.done + self._within(now)) / self.total)

    def left(self, now: float, is_seconds: bool) -> float | None:
        """Return the seconds left; from the pace so far, before that from what is predicted."""
        part = self.fraction(now)
        if part is None or (not self.done and not is_seconds):
            return None
        if not self.done:
            left = self.total - (now - self.begun)
            return left if left > 0 else None  # it takes longer than predicted
        return (now - self.begun) * (1 - part) / part if part else None

    def _within(self, now: float) -> float:
        """Return how much of the present batch is done, by its predicted seconds."""
        if not self.expected:
            return 0.0
        return min(0.95 * self.expected, now - self.batch_begun)


@dataclass
class Live:
    """Shows ``text``, n of N, the rate and the time left, from half a second on until it is closed.

    ``hidden`` shows nothing.
    """

    text: str = ""
    hidden: bool = False
    items: int = 0
    of: int = 0
    before: int = 0  # items that an earlier run has done
    more: str = ""  # after the counts
    pace: Pace = field(default_factory=Pace)
    in_seconds: bool = False  # the units of the pace
    _bar: Progress | None = None
    _thread: threading.Thread | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Live:
        if not self.hidden:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def begin(self, text: str, seconds: float | None = None) -> None:
        """Say what begins, and how long it should take."""
        self.text, self.pace.expected = text, seconds
        self.pace.batch_begun = time.monotonic()

    def line(self) -> str:
        """Return it as a line of plain text."""
        return ", ".join(filter(None, [self.text or "working", *self._facts(time.monotonic())]))

    def _facts(self, now: float) -> list[str]:
        facts = [f"{self.items} of {self.of}"] if self.of > 1 else []
        seconds = now - self.pace.begun
        new = self.items - self.before
        if new > 1 and seconds > 1:
            rate = new / seconds
            facts.append(f"{rate:.2g}/s" if rate < 10 else f"{rate:.0f}/s")
        if self.more:
            facts.append(self.more)
        left = self.pace.left(now, self.in_seconds)
        if left is not None:
            facts.append(f"about {duration(left)} left")
        else:
            facts.append(duration(seconds))
        return facts

    def _run(self) -> None:
        watched = sys.stderr.isatty()
        if self._ended.wait(FIRST_SECONDS if watched else LOG_SECONDS):
            return
        while True:
            if watched:
                self._draw()
            else:
                say(self.line())
            if self._ended.wait(_INTERVAL if watched else LOG_SECONDS):
                return

    def _draw(self) -> None:
        is_new = self._bar is None
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task("", total=None, facts="")
        now = time.monotonic()
        part = self.pace.fraction(now)
        self._bar.update(
            self._bar.task_ids[0],
            description=inert(_shortened(self.text or "working")),
            total=None if part is None else 1.0,
            completed=0 if part is None else part,
            facts=inert("  ".join(self._facts(now))),
        )
        if is_new:
            self._bar.start()


def _bar() -> Progress:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn

    columns: tuple[Any, ...] = (
        *(SpinnerColumn(), None, BarColumn(bar_width=12)),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    # Lines on stdout appear above the bar if both are on the terminal, otherwise on stdout.
    return progress(*columns, transient=True, redirect_stdout=sys.stdout.isatty())


def _shortened(text: str) -> str:
    return text if len(text) <= _NAME_WIDTH else f"{text[:12]}...{text[15 - _NAME_WIDTH :]}"


def duration(seconds: float) -> str:
    """Return seconds as text, with two units at most.

    >>> duration(7.25), duration(99.6), duration(3599), duration(5400), duration(200_000)
    ('7.2 s', '1 min 40 s', '59 min 59 s', '1 h 30 min', '2 d 7 h')
    """
    if round(seconds) < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
