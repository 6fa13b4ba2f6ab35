"""--dry-run: print the predicted cost instead of running."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.cli.reports.values import counted
from auravae_cli.cli.terminal.lines import say, tell
from auravae_cli.cli.terminal.live import duration
from auravae_cli.forecast.dry_run import PLANNED, UNKNOWN
from auravae_cli.forecast.run_setting import RunSetting
from auravae_cli.operations.batches import Outcome


@dataclass
class DryRunReporter:
    """Prints what is predicted, input by input, and the totals."""

    reporter: Reporter
    command: str
    pictures: int = 0
    seconds: float = 0.0
    memory: int = 0
    weights: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.reporter.describe = lambda outcome: [describe(outcome)]
        self.reporter.is_summed = False

    def __enter__(self) -> DryRunReporter:
        self.reporter.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.reporter.__exit__(kind, *rest)
        if kind is None and not self.reporter.as_json and not self.reporter.quiet:
            tell(self.text())

    def __call__(self, outcome: Outcome | None, done: int, total: int) -> None:
        """One more outcome."""
        if outcome is not None and outcome.status == PLANNED:
            predicted = outcome.details["predicted"]
            self.pictures += outcome.details.get("pictures", 1)
            self.seconds += predicted["seconds"] or 0.0
            self.memory = max(self.memory, predicted["memory"])
            self.weights = max(self.weights, predicted["weights"])
        elif outcome is not None:
            self.others[outcome.status] += 1
        self.reporter(outcome, done, total)

    def calibrating(self, setting: RunSetting) -> None:
        """Say what is measured, since it takes a while."""
        if not self.reporter.quiet:
            say(f"measuring how fast {setting.model} {self.command}s here, once ...")

    def text(self) -> str:
        """Return the line of totals."""
        counts = [f"{number} {status}" for status, number in sorted(self.others.items())]
        taken = f"{duration(self.seconds)}, at most {size(self.memory)}"
        if self.weights:
            taken += f" and {size(self.weights)} of weights"
        return ", ".join([f"total: {counted(self.pictures, 'picture')}, {taken}", *counts])


def describe(outcome: Outcome) -> str:
    """Return an outcome as a line of text."""
    if outcome.status == UNKNOWN:
        return f"{outcome.source}: unknown ({outcome.reason})"
    if outcome.status != PLANNED:
        return f"{outcome.source} -> {outcome.output}  ({outcome.reason})"
    details = outcome.details
    height, width = details["padded_size"]
    shape = f"{width} x {height}"
    if "pictures" in details:
        shape = f"{counted(details['pictures'], 'picture')} up to {shape}"
        if details["unreadable"]:
            shape += f", {details['unreadable']} unreadable"
    parts = [shape, tiles(details["tiles"]), size(details["predicted"]["memory"])]
    if details["predicted"]["seconds"] is not None:
        parts.append(duration(details["predicted"]["seconds"]))
    place = f" -> {outcome.output}" if outcome.output else ""
    return f"{outcome.source}{place}: {', '.join(parts)}"


def tiles(number: int) -> str:
    """Return how a picture is divided, as text."""
    return "whole" if number == 1 else f"{number} strips"


def size(number: int) -> str:
    """Return bytes as text."""
    return f"{number / 2**30:.1f} GiB" if number >= 1 << 30 else f"{number / 2**20:.0f} MiB"
