"""The output of `auravae eval`: progress on stderr; tables, or JSON lines, on stdout."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from auravae_cli.cli.reports.latent_space import WIDTH, print_parities, print_space
from auravae_cli.cli.reports.outcomes import predict_time, print_table, smaller
from auravae_cli.cli.reports.values import counted, number_or_dash
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.cli.terminal.live import Live, Pace
from auravae_cli.evaluation.run import PictureFailure
from auravae_cli.evaluation.session import Notice, Step
from auravae_cli.machine.progress import Phase
from auravae_cli.operations.timed_batches import Ahead

_LONGEST_LABEL = 20
_NOT_SHOWN = frozenset(("moments", "inception"))  # of a row: thousands of numbers, packed


@dataclass
class EvalReporter:
    """Follows an evaluation, and prints what came out.

    ``with EvalReporter(...) as report: evaluate(..., progress=report)``.
    """

    as_json: bool
    quiet: bool
    is_quick: bool = False  # quality alone is wanted
    live: Live = field(default_factory=Live)

    def __enter__(self) -> EvalReporter:
        self.live.hidden = self.quiet
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__()

    def __call__(self, step: Step | None, done: int, total: int) -> None:
        """Hear that rows are to be measured, or of a step."""
        if isinstance(step, Notice):
            if not self.quiet or not step.is_minor:
                say(f"note: {step.text}")
        elif isinstance(step, Phase):
            self.live.begin(step.text)
        elif step is None:
            self.live.begin("measuring")
            self.live.pace = Pace(total)
            self.live.of = total
        else:
            self._count(step, done)

    def begin(self, aheads: Sequence[Ahead]) -> None:
        """Hear of the work ahead of each model; of a long evaluation, say how long before it starts."""
        if not self.quiet:
            ways = ["--quick"] * (not self.is_quick) + smaller(aheads)
            predict_time(aheads, self.live, " or ".join(ways))

    def _count(self, step: PictureFailure | tuple[str, dict[str, Any]], done: int) -> None:
        if isinstance(step, PictureFailure):
            of = f" ({step.model})" if step.model else ""
            say(f"failed: {step.picture}{of}: {step.reason}")
        picture = step.picture if isinstance(step, PictureFailure) else step[1]["picture"]
        self.live.begin(f"measured {picture}")
        self.live.items = self.live.pace.done = done

    def finish(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Print the results."""
        if self.as_json:
            for row in rows:
                tell_json({"kind": "picture", **_shown(row)})
            tell_json({"kind": "summary", **summary})
        elif not self.quiet:
            print_summary(summary, with_channels=not self.is_quick)
            pictures, failed = summary["data"]["pictures"], len(summary["failures"])
            bad = f", {counted(failed, 'failure')}" if failed else ""
            say(f"{counted(pictures, 'picture')} measured{bad}")


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the numbers that are packed: thousands, which only summaries need."""
    shown = {name: value for name, value in row.items() if name not in _NOT_SHOWN}
    if row["flips"]:
        shown["flips"] = {
            name: {k: v for k, v in value.items() if k != "products"}
            if isinstance(value, dict)
            else value
            for name, value in row["flips"].items()
        }
    return shown


def print_summary(summary: Mapping[str, Any], *, with_channels: bool) -> None:
    """Print all tables of an evaluation; none is wider than 80 columns.

    ``with_channels``: also those of each latent channel.
    """
    models = summary["models"]
    if not models:
        return
    labels = [_short(model["label"]) for model in models]
    number = summary["data"]["pictures"]
    columns = ["model", *(name for name, *_ in QUALITY)]
    _print_filled(counted(number, "picture"), columns, [_quality(model) for model in models])
    _print_appearance(labels, models)
    _print_noise(labels, models)
    _print_storage(labels, models)
    print_space(labels, models)
    for label, model in zip(labels, models, strict=True):
        _print_flips(label, model["certificate"])
        print_parities(model)
    for label, model in zip(labels, models, strict=True) if with_channels else ():
        _print_statistics(label, model["latent"])
    sys.stdout.flush()


QUALITY = (
    ("PSNR dB", "psnr", "mean", "{:.2f}"),
    ("worst", "psnr", "worst", "{:.2f}"),
    ("SSIM", "ssim", "mean", "{:.3f}"),
    ("worst", "ssim", "worst", "{:.3f}"),
    ("MS-SSIM", "ms_ssim", "mean", "{:.4f}"),
    ("LPIPS", "lpips", "mean", "{:.3f}"),
    ("worst", "lpips", "worst", "{:.3f}"),
    ("rFID", "rfid", "mean", "{:.2f}"),
)


def _quality(model: Mapping[str, Any]) -> list[str]:
    cells = [_short(model["label"])]
    for _, metric, key, form in QUALITY:
        numbers = model["quality"][metric]
        cells.append(number_or_dash(numbers and numbers[key], form))
    return cells


def _print_filled(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table without the columns that were not measured."""
    filled = [any(row[i] != "-" for row in rows) for i in range(len(columns))]
    kept, *shown = (list(compress(line, filled)) for line in (columns, *rows))
    print_table(title, kept, shown)


def _print_appearance(labels: list[str], models: Sequence[Mapping[str, Any]]) -> None:
    _print_filled(
        "\nMore of the pictures: the mean and the worst",
        ["model", "CIEDE2000", "worst", "grid, of 255", "worst", "text error", "worst"],
        [
            [
                label,
                *(
                    number_or_dash(numbers and numbers[key], "{:.3f}")
                    for metric in ("ciede2000", "grid", "text_error")
                    for numbers in [model["quality"][metric]]
                    for key in ("mean", "worst")
                ),
            ]
            for label, model in zip(labels, models, strict=True)
        ],
    )


def _print_noise(labels: list[str], models: Sequence[Mapping[str, Any]]) -> None:
    found = [(label, m) for label, m in zip(labels, models, strict=True) if m["noise"]]
    if not found:
        return
    first = found[0][1]["noise"]
    print_table(
        f"\nPSNR dB at latent noise, {counted(first['pictures'], 'picture')}",
        ["model", *(f"{point['noise']:g}" for point in first["points"])],
        [
            [label, *(number_or_dash(p["psnr"], "{:.2f}") for p in model["noise"]["points"])]
            for label, model in found
        ],
    )


def _print_storage(labels: list[str], models: Sequence[Mapping[str, Any]]) -> None:
    found = [(label, m) for label, m in zip(labels, models, strict=True) if m["storage"]]
    if not found:
        return
    print_table(
        f"\nStorage types, {counted(found[0][1]['storage']['pictures'], 'picture')}",
        ["model", "type", "bytes a picture", "PSNR dB", "cost dB", "worst cost"],
        [
            [
                label,
                one["type"],
                f"{one['bytes']:,.0f}",
                number_or_dash(one["psnr"], "{:.3f}"),
                number_or_dash(one["cost"], "{:.4f}"),
                number_or_dash(one["worst_cost"], "{:.4f}"),
            ]
            for label, model in found
            for one in model["storage"]["types"]
        ],
    )


def _print_flips(label: str, certificate: Mapping[str, Any] | None) -> None:
    if certificate is None:
        return
    rows = []
    for g, numbers in certificate["elements"].items():
        errors = [
            number_or_dash(numbers[f"encoder_error{part}"]["worst"], "{:.1e}")
            for part in ("", "_without_signs", "_without_flip")
        ]
        decoder, gap = numbers["decoder_psnr"]["worst"], numbers["flip_gap"]
        exact = "exact" if decoder is None else f"{decoder:.1f}"
        gaps = [number_or_dash(gap[key], "{:.4f}") for key in ("mean", "worst")]
        rows.append([g, *errors, exact, *gaps])
    pictures = certificate["data"]["pictures"]
    print_table(
        f"\nFlips of {label}, the worst of {counted(pictures, 'picture')}",
        ["flip", "E error", "no signs", "no flip", "D dB", "mean gap dB", "gap dB"],
        rows,
    )
    for line in textwrap.wrap(certificate["statement"], WIDTH - 2):
        tell(f"  {line}")


def _print_statistics(label: str, latent: Mapping[str, Any] | None) -> None:
    if latent is None:
        return
    rows = []
    for channel, correlation in enumerate(latent["correlation"]):
        others = [
            (abs(value), other, value)
            for other, value in enumerate(correlation)
            if other != channel and value is not None
        ]
        most = max(others, default=None)
        rows.append(
            [
                channel,
                *(
                    number_or_dash(latent[name][channel], "{:.3f}")
                    for name in ("mean", "deviation")
                ),
                number_or_dash(latent["kurtosis"][channel], "{:.2f}"),
                f"{latent['clamped_share'][channel]:.3%}",
                *(
                    number_or_dash(latent[name][channel], "{:.2f}")
                    for name in ("minimum", "maximum")
                ),
                f"{most[2]:+.2f} with {most[1]}" if most else "-",
            ]
        )
    columns = ["channel", "mean", "deviation", "kurtosis", "clamped", "minimum", "maximum"]
    print_table(f"\nLatents of {label}", [*columns, "correlation"], rows)


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
