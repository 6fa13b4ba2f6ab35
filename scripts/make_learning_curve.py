"""Draw docs/learning-curve.svg: held-out PSNR of runs of the trainer, against pixels and hours.

    python scripts/make_learning_curve.py RUN [RUN ...] [--output docs/learning-curve.svg]

RUN is a folder of `auravae train`; its log is enough. The numbers go to standard output as a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from auravae_cli.evaluation.page.charts import HEIGHT, WIDTH, Series, line_chart
from auravae_cli.files.atomic import write_atomically
from auravae_cli.train.curve import CurvePoint, read_curve

STYLE = """svg{font:14px sans-serif} rect.paper{fill:#fff} text{fill:#222} .tick,.axis{fill:#666}
.tick{font-size:12px} .end{text-anchor:end} .middle{text-anchor:middle} .grid{stroke:#ddd}
.series{color:#1f5fa8} .s1{color:#b4471b} .s2{color:#2a7d3f} .s3{color:#7a4aa0}
.line{fill:none;stroke:currentColor;stroke-width:2} g.series,text.series{fill:currentColor}"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("docs/learning-curve.svg"))
    options = parser.parse_args()
    curves = {run.resolve().name: read_curve(run) for run in options.runs}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise SystemExit("no run has been validated yet")
    write_atomically(options.output, drawing(curves).encode())
    print("| run | step | hours | million pixels | PSNR dB | SSIM |\n|---|---|---|---|---|---|")
    for name, points in curves.items():
        for point in points:
            held = point.validation
            print(
                f"| {name} | {held.step} | {point.hours:.2f} | {point.pixels / 1e6:.0f} "
                f"| {held.psnr:.2f} | {held.ssim:.3f} |"
            )


def drawing(curves: dict[str, tuple[CurvePoint, ...]]) -> str:
    """Both charts as one SVG file."""
    axes: dict[str, Callable[[CurvePoint], float]] = {
        "million pixels": lambda point: point.pixels / 1e6,
        "hours": lambda point: point.hours,
    }
    charts = []
    for place, (label, across) in enumerate(axes.items()):
        series = [
            Series(name, [(across(point), point.validation.psnr) for point in points])
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
