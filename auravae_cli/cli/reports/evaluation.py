"""What `auravae eval` says: progress on stderr; tables, or JSON lines, on stdout."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from auravae_cli.cli.reports.outcomes import Reporter, item_progress, print_table
from auravae_cli.cli.terminal.lines import console, inert, say, tell, tell_json
from auravae_cli.evaluation.run import PictureFailure

WIDTH = 80
_LONGEST_LABEL = 20
_NOT_SHOWN = frozenset(("moments", "inception"))  # of a row: thousands of numbers, packed

Result = TypeVar("Result")
Event = tuple[str, dict[str, Any]] | PictureFailure


@dataclass
class EvalReporter:
    """Follows a run, and prints what came out."""

    reporter: Reporter

    def waiting(self, what: str, work: Callable[[], Result]) -> Result:
        """Do some work with a spinner where somebody watches."""
        if self.reporter.quiet or not sys.stderr.isatty():
            return work()
        with console(on_stderr=True).status(what):
            return work()

    def follow(self, events: Iterable[Event], total: int) -> None:
        """Name failures as they come, with a bar where somebody watches."""
        for event in self._with_progress(events, total):
            if isinstance(event, PictureFailure):
                of = f" ({event.model})" if event.model else ""
                say(f"failed: {event.picture}{of}: {event.reason}")

    def finish(self, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Print the results."""
        if self.reporter.as_json:
            for row in rows:
                shown = {name: value for name, value in row.items() if name not in _NOT_SHOWN}
                tell_json({"kind": "picture", **shown})
            tell_json({"kind": "summary", **summary})
        elif not self.reporter.quiet:
            print_summary(summary)
            pictures, failed = summary["data"]["pictures"], len(summary["failures"])
            say(f"{pictures} pictures measured" + (f", {failed} failures" if failed else ""))

    def _with_progress(self, events: Iterable[Event], total: int) -> Iterator[Event]:
        if self.reporter.quiet or not sys.stderr.isatty():
            yield from events
            return
        with item_progress() as bar:
            task = bar.add_task("", total=total)
            for event in events:
                yield event
                picture = (
                    event.picture if isinstance(event, PictureFailure) else event[1]["picture"]
                )
                bar.update(task, advance=1, description=inert(picture[-40:]))


def print_summary(summary: Mapping[str, Any]) -> None:
    """All tables of an evaluation; none is wider than 80 columns."""
    models = summary["models"]
    if not models:
        return
    labels = [_short(model["label"]) for model in models]
    number = summary["data"]["pictures"]
    columns = ["model", *(name for name, *_ in QUALITY)]
    print_table(f"{number} pictures", columns, [_quality(model) for model in models])
    _print_noise(labels, models)
    _print_storage(labels, models)
    for label, model in zip(labels, models, strict=True):
        _print_flips(label, model["certificate"])
    for label, model in zip(labels, models, strict=True):
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
        cells.append(_number(numbers and numbers[key], form))
    return cells


def _print_noise(labels: list[str], models: Sequence[Mapping[str, Any]]) -> None:
    if any(model["noise"] is None for model in models):
        return
    first = models[0]["noise"]
    print_table(
        f"\nPSNR dB at latent noise, {first['pictures']} pictures",
        ["model", *(f"{point['noise']:g}" for point in first["points"])],
        [
            [label, *(_number(p["psnr"], "{:.2f}") for p in model["noise"]["points"])]
            for label, model in zip(labels, models, strict=True)
        ],
    )


def _print_storage(labels: list[str], models: Sequence[Mapping[str, Any]]) -> None:
    if any(model["storage"] is None for model in models):
        return
    print_table(
        f"\nStorage types, {models[0]['storage']['pictures']} pictures",
        ["model", "type", "bytes a picture", "PSNR dB", "cost dB", "worst cost"],
        [
            [
                label,
                one["type"],
                f"{one['bytes']:,.0f}",
                _number(one["psnr"], "{:.3f}"),
                _number(one["cost"], "{:.4f}"),
                _number(one["worst_cost"], "{:.4f}"),
            ]
            for label, model in zip(labels, models, strict=True)
            for one in model["storage"]["types"]
        ],
    )


def _print_flips(label: str, certificate: Mapping[str, Any] | None) -> None:
    if certificate is None:
        return
    rows = []
    for g, numbers in certificate["elements"].items():
        errors = [
            _number(numbers[f"encoder_error{part}"]["worst"], "{:.1e}")
            for part in ("", "_without_signs", "_without_flip")
        ]
        decoder, gap = numbers["decoder_psnr"]["worst"], numbers["flip_gap"]
        exact = "exact" if decoder is None else f"{decoder:.1f}"
        gaps = [_number(gap[key], "{:.4f}") for key in ("mean", "worst")]
        rows.append([g, *errors, exact, *gaps])
    pictures = certificate["data"]["pictures"]
    print_table(
        f"\nFlips of {label}, the worst of {pictures} pictures",
        ["flip", "E error", "no signs", "no flip", "D dB", "mean gap dB", "gap dB"],
        rows,
    )
    for line in textwrap.wrap(certificate["statement"], WIDTH - 2):
        tell(f"  {line}")


def _print_statistics(label: str, latent: Mapping[str, Any]) -> None:
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
                *(_number(latent[name][channel], "{:.3f}") for name in ("mean", "deviation")),
                _number(latent["kurtosis"][channel], "{:.2f}"),
                f"{latent['clamped_share'][channel]:.3%}",
                *(_number(latent[name][channel], "{:.2f}") for name in ("minimum", "maximum")),
                f"{most[2]:+.2f} with {most[1]}" if most else "-",
            ]
        )
    columns = ["channel", "mean", "deviation", "kurtosis", "clamped", "minimum", "maximum"]
    print_table(f"\nLatents of {label}", [*columns, "correlation"], rows)


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    text = form.format(value)
    return text.removeprefix("-") if not float(text) else text


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
