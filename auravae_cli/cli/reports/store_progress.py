"""The output of a command that fills a store."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED, Reporter
from auravae_cli.cli.terminal.lines import progress, say, tell, tell_json
from auravae_cli.files.storage import open_storage
from auravae_cli.store.commit import ShardOutcome

if TYPE_CHECKING:
    from rich.progress import Progress

    from auravae_cli.operations.encode_shard import RowDone


@dataclass
class StoreReporter:
    """Prints a line (or with ``--json`` an object) per shard, and draws the progress.

    ``with StoreReporter(...) as report: encode_store(..., progress=report)``
    """

    reporter: Reporter
    place: str
    outcomes: list[ShardOutcome] = field(default_factory=list)
    _pictures: int = 0
    _failed: int = 0
    _bar: Progress | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> StoreReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        self.reporter.tell_passed_over(self.reporter.passed_over)
        if kind is None:
            self._finish()

    def __call__(self, step: RowDone | ShardOutcome | None, done: int, total: int) -> None:
        """Hear that a call begins, of a row, or of a shard; ``done`` bytes of the sources."""
        if isinstance(step, ShardOutcome):
            self._report(step)
        elif step is not None:
            self._pictures += 1
            self._failed += step.failure is not None
            if step.failure is not None and not self.reporter.as_json:
                say(f"failed: {step.failure.reason}")
        else:
            self.reporter.tell_passed_over(self.reporter.passed_over)
            self.reporter.passed_over.clear()
        if step is None and not self.reporter.quiet and sys.stderr.isatty():
            self._bar = self._stack.enter_context(_bytes_progress())
            self._bar.add_task("", total=total)
        if step is not None and self._bar is not None:
            rate = self._pictures / max(self._bar.tasks[0].elapsed or 0, 1e-3)
            told = f"{self._pictures} pictures, {rate:.1f}/s" if self._pictures else ""
            bad = f", {self._failed} failed" if self._failed else ""
            self._bar.update(self._bar.task_ids[0], completed=done, description=told + bad)

    @property
    def code(self) -> int:
        """The exit code."""
        bad = any(outcome.failures or outcome.status == "failed" for outcome in self.outcomes)
        return EXIT_SOME_FAILED if bad else 0

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

    def _finish(self) -> None:
        rows = sum(outcome.rows for outcome in self.outcomes)
        failures = sum(outcome.failures for outcome in self.outcomes)
        broken = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        if failures and not self.reporter.as_json:
            say(
                f"{counted(failures, 'input')} without a latent: see {open_storage(self.place).root}/*.failures.jsonl; "
                "--retry-failures tries them again"
            )
        if not (self.reporter.quiet or self.reporter.as_json):
            more = f", {counted(len(broken), 'shard')} failed" if broken else ""
            sound = counted(len(self.outcomes) - len(broken), "shard")
            say(f"{counted(rows, 'latent')} in {sound}{more}")


def _bytes_progress() -> Progress:
    """A bar on stderr: bytes of the source, pictures a second, failures."""
    from rich.progress import BarColumn, DownloadColumn, TimeElapsedColumn, TimeRemainingColumn

    return progress(
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
        None,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 shard``, ``2 shards``."""
    return f"{number} {what}{'s' * (number != 1)}"
