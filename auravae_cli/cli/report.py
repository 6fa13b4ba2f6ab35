"""What a command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from auravae_cli.files.canonical_json import write_json
from auravae_cli.pipeline.batches import Outcome

EXIT_SOME_FAILED = 1


@dataclass
class Taken:
    """What the model took in all, where pictures tell, beside what was foretold of it."""

    seconds: float = 0.0
    foretold: float | None = 0.0

    def add(self, outcome: Outcome) -> None:
        """One more outcome."""
        if outcome.status == "done" and "measured" in outcome.details:
            self.seconds += outcome.details["measured"]["seconds"]
            predicted = outcome.details["predicted"]["seconds"]
            self.foretold = (
                None if None in (predicted, self.foretold) else self.foretold + predicted
            )

    def clauses(self) -> list[str]:
        """What to say of it, where it was long enough to be worth it."""
        if self.seconds < 1:
            return []
        known = "" if self.foretold is None else f" (predicted {self.foretold:.1f} s)"
        return [f"{self.seconds:.1f} s in the model{known}"]


@dataclass
class Reporter:
    """Prints outcomes as they come, and keeps count for the exit code.

    ``data_on_stdout`` says that stdout carries a latent or a picture, so nothing else may.
    """

    as_json: bool = False
    quiet: bool = False
    data_on_stdout: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    taken: Taken = field(default_factory=Taken)

    def run(
        self,
        outcomes: Iterable[Outcome],
        total: int,
        describe: Callable[[Outcome], str] | None = None,
        is_summed: bool = True,
    ) -> int:
        """Report every outcome, and how many there were of each kind; the exit code."""
        for outcome in self._with_progress(outcomes, total):
            self.report(outcome, describe)
        if total > 1 and is_summed and not self.quiet and not self.as_json:
            say(self.summary())
        return EXIT_SOME_FAILED if self.counts["failed"] else 0

    def summary(self) -> str:
        """How many inputs came to what."""
        counts = [f"{number} {status}" for status, number in sorted(self.counts.items())]
        return ", ".join([*counts, *self.taken.clauses()])

    def report(self, outcome: Outcome, describe: Callable[[Outcome], str] | None = None) -> None:
        """Print one outcome."""
        self.counts[outcome.status] += 1
        self.taken.add(outcome)
        if self.as_json:
            stream = sys.stderr if self.data_on_stdout else sys.stdout
            print(write_json(asdict(outcome)), file=stream, flush=True)
        if outcome.status == "failed" and not self.as_json:
            say(f"failed: {outcome.source}: {outcome.reason}")
        if self.as_json or self.quiet:
            return
        for notice in outcome.notices:
            say(f"note: {outcome.source}: {notice}")
        if outcome.status == "failed":
            return
        if describe:
            print(describe(outcome), file=sys.stderr if self.data_on_stdout else sys.stdout)
        elif outcome.output:  # in a pipe, silence says that all went well
            print(_line(outcome), file=sys.stderr if self.data_on_stdout else sys.stdout)

    def _with_progress(self, outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
        """A bar on stderr where somebody watches and there is something to wait for."""
        if self.quiet or total < 2 or not sys.stderr.isatty():
            yield from outcomes
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            SpinnerColumn(),
            *Progress.get_default_columns()[:3],
            TimeRemainingColumn(),
            TimeElapsedColumn(),
        )
        # Lines on stdout go above the bar if both are on the terminal, else where stdout goes.
        both = sys.stdout.isatty()
        with Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=both
        ) as progress:
            task = progress.add_task("", total=total)
            for outcome in outcomes:
                yield outcome
                failed = f"  {self.counts['failed']} failed" if self.counts["failed"] else ""
                progress.update(task, advance=1, description=f"{outcome.source[-40:]}{failed}")


def _line(outcome: Outcome) -> str:
    note = f"  ({outcome.reason})" if outcome.status == "skipped" else ""
    return f"{outcome.source} -> {outcome.output}{note}"


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table on stdout: drawn on a terminal, else plain lines that no width cuts."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in [[title], columns, *texts]:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            if any(row):
                print("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
