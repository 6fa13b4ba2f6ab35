"""What a command says while it fills a store."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED, Reporter
from auravae_cli.cli.terminal.lines import progress, say, tell, tell_json
from auravae_cli.store.commit import ShardOutcome

if TYPE_CHECKING:
    from auravae_cli.operations.encode_shard import RowDone


@dataclass
class StoreReporter:
    """Prints a line (or, with ``--json``, an object) for each shard, and draws the progress.

    ``total`` is the bytes of all shards' sources.
    """

    reporter: Reporter
    root: str
    total: int
    outcomes: list[ShardOutcome] = field(default_factory=list)

    def run(self, steps: Iterable[RowDone | ShardOutcome]) -> int:
        """Follow a run to its end; the exit code."""
        for step in self._with_progress(steps):
            if isinstance(step, ShardOutcome):
                self._report(step)
            elif step.failure is not None and not self.reporter.as_json:
                say(f"failed: {step.failure.reason}")
        return self._finish()

    def _report(self, outcome: ShardOutcome) -> None:
        self.outcomes.append(outcome)
        if self.reporter.as_json:
            tell_json(asdict(outcome))
            return
        if outcome.status == "failed":
            say(f"failed: shard {outcome.shard}: {outcome.reason}")
        elif not self.reporter.quiet:
            failed = f", {outcome.failures} failed" if outcome.failures else ""
            note = "  (up to date)" if outcome.status == "skipped" else ""
            self.reporter.tell_passed_over(outcome.passed_over, f"{outcome.shard}: ")
            tell(f"{outcome.shard}: {counted(outcome.rows, 'latent')}{failed}{note}", flush=True)

    def _finish(self) -> int:
        rows = sum(outcome.rows for outcome in self.outcomes)
        failures = sum(outcome.failures for outcome in self.outcomes)
        broken = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        if failures and not self.reporter.as_json:
            say(
                f"{counted(failures, 'input')} without a latent: see {self.root}/*.failures.jsonl; "
                "--retry-failures tries them again"
            )
        if not (self.reporter.quiet or self.reporter.as_json):
            more = f", {counted(len(broken), 'shard')} failed" if broken else ""
            sound = counted(len(self.outcomes) - len(broken), "shard")
            say(f"{counted(rows, 'latent')} in {sound}{more}")
        return EXIT_SOME_FAILED if failures or broken else 0

    def _with_progress(
        self, steps: Iterable[RowDone | ShardOutcome]
    ) -> Iterator[RowDone | ShardOutcome]:
        """A bar on stderr where somebody watches: bytes of the source, pictures a second, failures."""
        if self.reporter.quiet or not sys.stderr.isatty():
            yield from steps
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        with progress(
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            TimeElapsedColumn(),
            None,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        ) as bar:
            task = bar.add_task("", total=self.total)
            pictures = failed = settled = under_way = 0
            for step in steps:
                yield step
                if isinstance(step, ShardOutcome):
                    settled, under_way = settled + step.source_size, 0
                else:
                    pictures, under_way = pictures + 1, under_way + step.size
                    failed += step.failure is not None
                rate = pictures / max(bar.tasks[0].elapsed or 0, 1e-3)
                told = f"{pictures} pictures, {rate:.1f}/s" if pictures else ""
                bad = f", {failed} failed" if failed else ""
                bar.update(
                    task,
                    completed=min(self.total, settled + under_way),
                    description=told + bad,
                )


def counted(number: int, what: str) -> str:
    """``1 shard``, ``2 shards``."""
    return f"{number} {what}{'s' * (number != 1)}"
