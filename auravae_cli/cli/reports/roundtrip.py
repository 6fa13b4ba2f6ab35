"""The output of `auravae roundtrip`: each picture's numbers, then the mean and the worst of each model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.cli.reports.outcomes import Reporter, print_table
from auravae_cli.operations.batches import Outcome


@dataclass
class RoundTripReporter(Reporter):
    """A `Reporter` that sums up the quality of several pictures, for each model."""

    trips: dict[str, list[Outcome]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.describe = describe

    def report(self, outcome: Outcome) -> None:
        """Print one outcome."""
        super().report(outcome)
        if outcome.status == "done" and "psnr" in outcome.details:
            self.trips.setdefault(outcome.details["model"], []).append(outcome)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.live.__exit__()
        shows = not (self.as_json or self.quiet or self.data_on_stdout)
        if kind is None and shows and max(map(len, self.trips.values()), default=0) > 1:
            self._print_summary()
        super().__exit__(kind, *rest)

    def _print_summary(self) -> None:
        columns = ["model", "pictures", "PSNR dB", "worst", "SSIM", "worst", "worst picture"]
        print_table("\n", columns, [_row(model, trips) for model, trips in self.trips.items()])


def _row(model: str, trips: list[Outcome]) -> list[str]:
    psnr = [math.inf if t.details["psnr"] is None else t.details["psnr"] for t in trips]
    finite = [value for value in psnr if math.isfinite(value)]
    ssim = [t.details["ssim"] for t in trips if t.details["ssim"] is not None]
    worst = trips[psnr.index(min(psnr))].source
    cells = [
        f"{sum(finite) / len(finite):.2f}" if finite else "identical",
        f"{min(finite):.2f}" if finite else "identical",
        f"{sum(ssim) / len(ssim):.4f}" if ssim else "-",
        f"{min(ssim):.4f}" if ssim else "-",
    ]
    return [model, str(len(trips)), *cells, worst]


def describe(outcome: Outcome) -> list[str]:
    """Return a round trip's numbers as lines of text."""
    details = outcome.details
    lines = [f"{outcome.source} -> {outcome.output or 'standard output'}"]
    if "sheet" in details:
        lines.append(f"  contact sheet   {details['sheet']}")
    lines.append(f"  reconstruction  {_quality(details)}")
    for g, numbers in details.get("flips", {}).items():
        lines.append(f"  {f'flipped by {g}':<14}  {_quality(numbers)}")
    seconds = details["seconds"].items()
    lines.append(
        "  seconds         " + ", ".join(f"{stage} {value:.3f}" for stage, value in seconds)
    )
    return lines


def _quality(numbers: dict[str, Any]) -> str:
    psnr, ssim = numbers["psnr"], numbers["ssim"]
    left = "identical" if psnr is None else f"PSNR {psnr:6.2f} dB"
    return left + ("" if ssim is None else f"   SSIM {ssim:.4f}")
