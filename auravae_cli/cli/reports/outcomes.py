"""The output of commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from auravae_cli.cli.reports.values import counted
from auravae_cli.cli.terminal.lines import console, inert, say, tell, tell_json
from auravae_cli.cli.terminal.live import Live, duration
from auravae_cli.machine.progress import Phase
from auravae_cli.operations.batches import Outcome

if TYPE_CHECKING:
    from auravae_cli.forecast.outlook import Outlook
    from auravae_cli.operations.timed_batches import Ahead

EXIT_SOME_FAILED = 1
LONG_SECONDS = 60.0  # from here on a run says first how long it takes
SMALLER_SIDE = 1024  # that pictures may be resized to
FEW_PIXELS = 2e6  # through half a network: they take a few seconds at most


@dataclass
class ModelTime:
    """The total time in the model, if known, beside its prediction."""

    seconds: float = 0.0
    predicted: float | None = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add an outcome."""
        if outcome.status == "done" and "measured" in outcome.details:
            self.seconds += outcome.details["measured"]["seconds"]
            predicted = outcome.details["predicted"]["seconds"]
            self.predicted = (
                None if None in (predicted, self.predicted) else self.predicted + predicted
            )

    def clauses(self) -> list[str]:
        """Return what to report, if it was long enough to matter."""
        if self.seconds < 1:
            return []
        known = "" if self.predicted is None else f" (predicted {self.predicted:.1f} s)"
        return [f"{self.seconds:.1f} s in the model{known}"]


@dataclass
class Reporter:
    """Prints outcomes as a call hands them over, and keeps count for the exit code.

    ``with reporter: encode_files(..., progress=reporter)``: a bar on stderr where somebody watches
    and there is something to wait for, in the end how many there were of each kind.
    ``data_on_stdout`` says that stdout carries a latent or a picture, so nothing else may.
    """

    as_json: bool = False
    quiet: bool = False
    data_on_stdout: bool = False
    describe: Callable[[Outcome], list[str]] | None = None
    is_summed: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    taken: ModelTime = field(default_factory=ModelTime)
    passed_over: Counter[str] = field(default_factory=Counter)  # files by suffix, not yet reported
    live: Live = field(default_factory=Live)
    _total: int = 0

    def __enter__(self) -> Reporter:
        self.live.hidden = self.quiet
        self.live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.live.__exit__()
        self.tell_passed_over(self.passed_over)  # where the call went no further
        sums = self.is_summed and not self.quiet and not self.as_json
        if kind is None and self._total > 1 and sums:
            say(self.summary())

    def __call__(self, outcome: Outcome | None, done: int, total: int) -> None:
        """Hear that a call begins, or of one more outcome."""
        self._total = total
        if outcome is None:
            self.tell_passed_over(self.passed_over)
            self.passed_over.clear()
        else:
            self.report(outcome)
        self._pace(outcome, done, total)

    def begin(self, what: Phase | Ahead) -> None:
        """Hear what begins, or of the work ahead."""
        if isinstance(what, Phase):
            self.live.begin(what.text, what.seconds)
        elif not self.quiet:
            self._look_ahead(what)

    def _look_ahead(self, ahead: Ahead) -> None:
        """Find out how long it takes; of a long run, say so before it starts."""
        ways = []
        if ahead.command != "decode":
            ways = smaller([ahead]) + ["-m linear"] * (ahead.codec.space.model != "linear")
        seconds = predict_time([ahead], self.live, " or ".join(ways))
        if seconds is not None:
            self.live.in_seconds, self.live.pace.total = True, seconds

    def _pace(self, outcome: Outcome | None, done: int, total: int) -> None:
        """Move the line that shows how far it is."""
        live = self.live
        live.items, live.of = done, total
        live.more = f"{self.counts['failed']} failed" if self.counts["failed"] else ""
        if not live.in_seconds:
            live.pace.total, live.pace.done = (total, done) if total > 1 else (0, 0)
        elif outcome is not None and outcome.status == "done":
            live.pace.done += outcome.details["predicted"]["seconds"] or 0.0
            live.pace.expected = None
        if outcome is None:
            live.pace.begun = time.monotonic()

    @property
    def code(self) -> int:
        """The exit code."""
        return EXIT_SOME_FAILED if self.counts["failed"] else 0

    def tell_passed_over(self, by_suffix: Mapping[str, int], where: str = "") -> None:
        """Print how many files look like inputs but are not, by suffix, the most frequent first."""
        ordered = sorted(by_suffix.items(), key=lambda item: (-item[1], item[0]))
        if ordered and not self.quiet:
            found = ", ".join(f"{number} {suffix}" for suffix, number in ordered)
            say(f"note: {where}passed over: {found}")

    def summary(self) -> str:
        """Return the counts by kind, as text."""
        counts = [f"{number} {status}" for status, number in sorted(self.counts.items())]
        return ", ".join([*counts, *self.taken.clauses()])

    def report(self, outcome: Outcome) -> None:
        """Print one outcome."""
        self.counts[outcome.status] += 1
        self.taken.add(outcome)
        if self.as_json:
            tell_json(asdict(outcome), on_stderr=self.data_on_stdout)
        if outcome.status == "failed" and not self.as_json:
            say(f"failed: {outcome.source}: {outcome.reason}")
        if self.as_json or self.quiet:
            return
        for notice in outcome.notices:
            say(f"note: {outcome.source}: {notice}")
        if outcome.status == "failed":
            return
        if self.describe:
            tell(*self.describe(outcome), on_stderr=self.data_on_stdout)
        elif outcome.output:  # in a pipe, silence says that all went well
            tell(_line(outcome), on_stderr=self.data_on_stdout)


def _line(outcome: Outcome) -> str:
    note = f"  ({outcome.reason})" if outcome.status == "skipped" else ""
    return f"{outcome.source} -> {outcome.output}{note}"


def smaller(aheads: Sequence[Ahead]) -> list[str]:
    """Return the option that shrinks pictures, if some are so large that it does."""
    largest = max((min(size) for ahead in aheads for size in ahead.sizes), default=0)
    return [f"--resize {SMALLER_SIDE}"] * (largest > SMALLER_SIDE)


def predict_time(aheads: Sequence[Ahead], live: Live, less: str) -> float | None:
    """Return how long runs with some models take together; of long ones, say so before they start.

    ``less`` names what takes less.
    """
    if sum(ahead.pixels * sum(times for _, times in ahead.parts) for ahead in aheads) < FEW_PIXELS:
        return None
    from auravae_cli.forecast.outlook import outlook

    live.begin("estimating the time")
    found = [outlook(ahead) for ahead in aheads]
    if any(one.seconds is None for one in found):
        return None
    seconds = sum(
        (one.seconds or 0.0) * ahead.share for one, ahead in zip(found, aheads, strict=True)
    )
    if seconds >= LONG_SECONDS:
        say(sentence(aheads, found, seconds, less))
    return seconds


def sentence(aheads: Sequence[Ahead], found: Sequence[Outlook], seconds: float, less: str) -> str:
    """Return what a long run takes, and what would take less."""
    models = ", ".join(ahead.codec.space.model for ahead in aheads)
    pictures = counted(max(ahead.number for ahead in aheads), "picture")
    size = max(ahead.pixels for ahead in aheads) / 1e6
    work = f"{pictures}, {size:.{size < 10:d}f} megapixels, with {models}"
    hints = [f"{less} takes less"] if less else []
    strips = max(one.strips for one in found)
    if strips > 1:
        hints.append(
            f"for lack of memory, a picture runs in up to {strips} strips; a larger --memory may be faster"
        )
    place = f"{aheads[0].codec.device}{aheads[0].workers and f', shared by {aheads[0].workers}'}"
    start = f"note: about {duration(seconds)}: {work} on {place}"
    return "; ".join([start, *hints])


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on stdout: drawn on a terminal, otherwise plain lines of any width."""
    if title.startswith("\n"):
        tell("")
    title = inert(title.removeprefix("\n"))
    texts = [[inert(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        padded = (map(str.ljust, row, widths) for row in [[title], columns, *texts] if any(row))
        tell(*("  ".join(cells).rstrip() for cells in padded))
        return
    from rich.table import Table
    from rich.text import Text

    shown = Text(title) if title else None
    has_names = any(columns)
    table = Table(
        title=shown, title_justify="left", box=None, pad_edge=False, show_header=has_names
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*row)
    console().print(table)
