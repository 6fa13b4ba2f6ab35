"""The output of commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from auravae_cli.cli.terminal.lines import console, inert, progress, say, tell, tell_json
from auravae_cli.operations.batches import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress

EXIT_SOME_FAILED = 1


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
    passed_over: Counter[str] = field(default_factory=Counter)  # files by suffix: to be told
    _total: int = 0
    _bar: Progress | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._stack.close()
        self.tell_passed_over(self.passed_over)  # where the call went no further
        told = self.is_summed and not self.quiet and not self.as_json
        if kind is None and self._total > 1 and told:
            say(self.summary())

    def __call__(self, outcome: Outcome | None, done: int, total: int) -> None:
        """Hear that a call begins, or of one more outcome."""
        self._total = total
        if outcome is None:
            self.tell_passed_over(self.passed_over)
            self.passed_over.clear()
        if outcome is not None:
            self.report(outcome)
        elif not self.quiet and total > 1 and sys.stderr.isatty():
            self._bar = self._stack.enter_context(item_progress())
            self._bar.add_task("", total=total)
        if outcome is not None and self._bar is not None:
            failed = f"  {self.counts['failed']} failed" if self.counts["failed"] else ""
            text = inert(outcome.source[-40:] + failed)
            self._bar.update(self._bar.task_ids[0], completed=done, description=text)

    @property
    def code(self) -> int:
        """The exit code."""
        return EXIT_SOME_FAILED if self.counts["failed"] else 0

    def tell_passed_over(self, by_suffix: Mapping[str, int], where: str = "") -> None:
        """How many files look like inputs and are none, by suffix: the most first."""
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


def item_progress() -> Progress:
    """Return a bar on stderr of the items done, with the name of the last."""
    from rich.progress import (
        BarColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return progress(
        SpinnerColumn(),
        None,
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
        transient=True,
        # Lines on stdout appear above the bar if both are on the terminal, otherwise on stdout.
        redirect_stdout=sys.stdout.isatty(),
    )


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on stdout: drawn on a terminal, otherwise plain lines of any width."""
    if title.startswith("\n"):
        tell("")
    title = inert(title.removeprefix("\n"))
    texts = [[inert(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in [[title], columns, *texts]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            if any(row):
                tell("  ".join(cells).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    shown = Text(title) if title else None
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*row)
    console().print(table)
