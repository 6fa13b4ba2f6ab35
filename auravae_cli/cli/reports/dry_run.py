"""--dry-run: what a command would do, said in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from auravae_cli.cli.reports.outcomes import Reporter
from auravae_cli.cli.terminal.lines import say, tell
from auravae_cli.forecast.dry_run import PLANNED, UNKNOWN, Forecaster
from auravae_cli.forecast.run_setting import RunSetting, find_setting
from auravae_cli.machine.speeds import Speeds
from auravae_cli.operations.batches import Outcome
from auravae_cli.operations.timed_batches import Parts
from auravae_cli.symmetry.group import GROUP


@dataclass
class DryRun:
    """Finds settings without loading models, and prints what is predicted, with the totals."""

    command: str
    parts: Parts
    reporter: Reporter
    device: str
    dtype: str
    memory: int | None
    batch_size: int | None = None
    symmetrize: str = "auto"
    speeds: Speeds = field(default_factory=Speeds)
    _settings: dict[str, RunSetting] = field(default_factory=dict)
    _models: dict[str, str] = field(default_factory=dict)

    def setting(self, model: str) -> RunSetting:
        """That of a model's name or a checkpoint's path. Raises WeightsError."""
        if model not in self._settings:
            names = tuple(part for part, _ in self.parts)
            found = find_setting(model, names, self.device, self.dtype, self.memory)
            repeats = len(GROUP) if self.symmetrize == "mean" else 1
            self._settings[model] = replace(found, repeats=repeats)
            self._models[found.weights_sha256] = model
        return self._settings[model]

    @property
    def forecaster(self) -> Forecaster:
        """What predicts."""
        return Forecaster(self.command, self.parts, self.speeds, self._calibrate, self.batch_size)

    def report(self, outcomes: Iterable[Outcome], total: int) -> int:
        """Print every outcome and the totals; the exit code."""
        sums = _Sums()
        code = self.reporter.run(
            sums.over(outcomes), total, lambda outcome: [describe(outcome)], is_summed=False
        )
        if not self.reporter.as_json and not self.reporter.quiet:
            tell(sums.text())
        return code

    def _calibrate(self, setting: RunSetting) -> None:
        """Measure a speed that no earlier run has told."""
        from auravae_cli.forecast.calibrate import calibrate

        if not self.reporter.quiet:
            say(f"measuring how fast {setting.model} {self.command}s here, once ...")
        model = self._models[setting.weights_sha256]
        calibrate(
            self.command, self.parts, replace(setting, repeats=1), model, self.memory, self.speeds
        )


@dataclass
class _Sums:
    """What all inputs take together."""

    pictures: int = 0
    seconds: float = 0.0
    memory: int = 0
    others: dict[str, int] = field(default_factory=dict)

    def over(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes, added up as they pass."""
        for outcome in outcomes:
            if outcome.status == PLANNED:
                predicted = outcome.details["predicted"]
                self.pictures += outcome.details.get("pictures", 1)
                self.seconds += predicted["seconds"] or 0.0
                self.memory = max(self.memory, predicted["memory"])
            else:
                self.others[outcome.status] = self.others.get(outcome.status, 0) + 1
            yield outcome

    def text(self) -> str:
        """The line of totals."""
        counts = [f"{number} {status}" for status, number in sorted(self.others.items())]
        taken = f"{duration(self.seconds)}, at most {size(self.memory)} beside the weights"
        noun = "picture" if self.pictures == 1 else "pictures"
        return ", ".join([f"total: {self.pictures} {noun}, {taken}", *counts])


def describe(outcome: Outcome) -> str:
    """A line for people."""
    if outcome.status == UNKNOWN:
        return f"{outcome.source}: unknown ({outcome.reason})"
    if outcome.status != PLANNED:
        return f"{outcome.source} -> {outcome.output}  ({outcome.reason})"
    details = outcome.details
    height, width = details["padded_size"]
    shape = f"{width} x {height}"
    if "pictures" in details:
        shape = f"{details['pictures']} pictures up to {shape}"
        if details["unreadable"]:
            shape += f", {details['unreadable']} unreadable"
    parts = [shape, tiles(details["tiles"]), size(details["predicted"]["memory"])]
    if details["predicted"]["seconds"] is not None:
        parts.append(duration(details["predicted"]["seconds"]))
    place = f" -> {outcome.output}" if outcome.output else ""
    return f"{outcome.source}{place}: {', '.join(parts)}"


def tiles(number: int) -> str:
    """How a picture is cut."""
    return "whole" if number == 1 else f"{number} strips"


def size(number: int) -> str:
    """Bytes for people."""
    return f"{number / 2**30:.1f} GiB" if number >= 1 << 30 else f"{number / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
