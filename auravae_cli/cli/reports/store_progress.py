"""The output of a command that fills a store."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED, Reporter
from auravae_cli.cli.reports.values import counted
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.files.storage import open_storage
from auravae_cli.store.commit import ShardOutcome

if TYPE_CHECKING:
    from auravae_cli.machine.progress import Phase
    from auravae_cli.operations.encode_shard import RowDone
    from auravae_cli.operations.timed_batches import Ahead


@dataclass
class StoreReporter:
    """Prints a line (or with ``--json`` an object) per shard, and draws the progress.

    ``with StoreReporter(...) as report: encode_store(..., progress=report)``
    """

    reporter: Reporter
    place: str
    advice: str = ""  # what to do with what is in the store and was not named
    outcomes: list[ShardOutcome] = field(default_factory=list)
    _pictures: int = 0
    _failed: int = 0
    _said: set[str] = field(default_factory=set)  # reasons of failures

    def __enter__(self) -> StoreReporter:
        self.reporter.live.hidden = self.reporter.quiet
        self.reporter.live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.reporter.live.__exit__()
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
                self._said.add(step.failure.reason)
        else:
            self.reporter.tell_passed_over(self.reporter.passed_over)
            self.reporter.passed_over.clear()
        self._pace(step is None, done, total)

    def begin(self, what: Phase | Ahead) -> None:
        """Hear what begins."""
        self.reporter.begin(what)

    def _pace(self, is_start: bool, done: int, total: int) -> None:
        """Move the line that shows how far it is, in bytes of the sources."""
        live = self.reporter.live
        whole = live.pace.total if live.in_seconds else float(total)  # as predicted, if it was
        live.pace.total, live.pace.done = whole, whole * done / max(1, total)
        live.items = self._pictures
        bad = f", {self._failed} failed" if self._failed else ""
        live.more = f"{counted(self._pictures, 'latent')}{bad}" if self._pictures else ""
        if is_start:
            live.pace.begun = time.monotonic()
            live.begin(f"filling {self.place}")

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
        for failure in outcome.failed:  # of a worker elsewhere
            if failure.reason not in self._said and not outcome.kept:
                say(f"failed: {failure.reason}")
        if outcome.status == "failed":
            is_told = str(outcome.reason).startswith(outcome.shard)
            say(f"failed: {'' if is_told else f'shard {outcome.shard}: '}{outcome.reason}")
        elif outcome.status == "dropped" and not self.reporter.quiet:
            tell(f"{outcome.shard}: dropped", flush=True)
        elif outcome.status != "kept" and not self.reporter.quiet:
            self.reporter.tell_passed_over(outcome.passed_over, f"{outcome.shard}: ")
            tell(
                f"{outcome.shard}: {counted(outcome.rows, 'latent')}{_details(outcome)}", flush=True
            )

    def _finish(self) -> None:
        rows = sum(outcome.rows for outcome in self.outcomes)
        failures = sum(outcome.failures for outcome in self.outcomes)
        broken = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        not_named = [outcome for outcome in self.outcomes if outcome.status == "kept"]
        named = [outcome for outcome in self.outcomes if outcome.status in ("done", "skipped")]
        if failures and not self.reporter.as_json:
            say(
                f"{counted(failures, 'failure')}: see {open_storage(self.place).root}/*.failures.jsonl; "
                "--retry-failures tries them again"
            )
        if not (self.reporter.quiet or self.reporter.as_json):
            kept = sum(outcome.kept for outcome in self.outcomes)
            others = [counted(kept, "latent")] * bool(kept)
            others += [counted(len(not_named), "shard")] * bool(not_named)
            if others:
                say(f"note: {' and '.join(others)} not named now: kept{self.advice}")
            more = f", {counted(len(broken), 'shard')} failed" if broken else ""
            sound = counted(len(named), "shard")
            say(f"{counted(rows, 'latent')} in {sound}{more}")


def _details(outcome: ShardOutcome) -> str:
    """Return what else is known of a shard, in brackets."""
    counts = {"kept": outcome.kept, "replaced": outcome.replaced, "dropped": outcome.dropped}
    notes = ["up to date"] * (outcome.status == "skipped")
    notes += [f"{number} {what}" for what, number in counts.items() if number]
    failed = f", {outcome.failures} failed" if outcome.failures else ""
    return failed + (f"  ({', '.join(notes)})" if notes else "")
