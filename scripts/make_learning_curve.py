"""Draw docs/learning-curve.svg: held-out PSNR of runs of the trainer, against pixels and hours.

    python scripts/make_learning_curve.py [RUN ...] [--continues NAME] [--output docs/learning-curve.svg]

RUN is a folder of `auravae train`; its log is enough, and its name is that of the line. The points are kept beside
the picture, as JSON: lines whose logs are gone stay. The numbers go to standard output as a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from auravae_cli.evaluation.page.charts import HEIGHT, WIDTH, Series, line_chart
from auravae_cli.files.atomic import write_atomically
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.typed import read_as
from auravae_cli.train.curve import read_curve

STYLE = """svg{font:14px sans-serif} rect.paper{fill:#fff} text{fill:#222} .tick,.axis{fill:#666}
.tick{font-size:12px} .end{text-anchor:end} .middle{text-anchor:middle} .grid{stroke:#ddd}
.series{color:#1f5fa8} .s1{color:#b4471b} .s2{color:#2a7d3f} .s3{color:#7a4aa0}
.line{fill:none;stroke:currentColor;stroke-width:2} g.series,text.series{fill:currentColor}"""


@dataclass(frozen=True)
class Point:
    """A validation of a line."""

    hours: float
    million_pixels: int
    psnr: float


Curves = dict[str, tuple[Point, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument(
        "--continues", metavar="NAME", help="the line from whose end the runs start"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/learning-curve.svg"))
    options = parser.parse_args()
    kept = options.output.with_suffix(".json")
    curves: Curves = read_as(Curves, read_json(kept.read_text())) if kept.exists() else {}
    if options.continues and options.continues not in curves:
        parser.error(f"--continues: {options.continues} is none of {', '.join(curves)}")
    before = curves[options.continues][-1].million_pixels if options.continues else 0
    for run in options.runs:
        curves[run.resolve().name] = points_of(run, before)
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise SystemExit("no run has been validated yet")
    facts = {name: [asdict(point) for point in points] for name, points in curves.items()}
    write_atomically(kept, (json.dumps(facts, indent=1) + "\n").encode())
    write_atomically(options.output, drawing(curves).encode())
    print("| line | hours | million pixels | PSNR dB |\n|---|---|---|---|")
    for name, points in curves.items():
        for point in points:
            print(f"| {name} | {point.hours} | {point.million_pixels} | {point.psnr} |")


def points_of(run: Path, before: int) -> tuple[Point, ...]:
    """Read a run's validations; ``before`` is what its start had seen, in millions of pixels."""
    return tuple(
        Point(round(p.hours, 2), before + round(p.pixels / 1e6), round(p.validation.psnr, 2))
        for p in read_curve(run)
    )


def drawing(curves: Curves) -> str:
    """Both charts as one SVG file."""
    axes: dict[str, Callable[[Point], float]] = {
        "million pixels": lambda point: point.million_pixels,
        "hours": lambda point: point.hours,
    }
    charts = []
    for place, (label, across) in enumerate(axes.items()):
        series = [
            Series(name, [(across(point), point.psnr) for point in points])
            for name, points in curves.items()
        ]
        title = f"Held-out PSNR against {label}"
        chart = str(line_chart(label[:5], title, title, series, (label, "PSNR, dB")))
        size = f' y="{place * HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        charts.append(chart.replace("<svg", f"<svg{size}", 1))
    box = f'viewBox="0 0 {WIDTH} {2 * HEIGHT}" width="{WIDTH}" height="{2 * HEIGHT}"'
    paper = f'<rect class="paper" width="{WIDTH}" height="{2 * HEIGHT}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{STYLE}</style>{paper}'
        f"{''.join(charts)}</svg>\n"
    )


if __name__ == "__main__":
    main()
