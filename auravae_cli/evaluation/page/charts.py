"""Charts as inline SVG, each with a title, a description, and a table of its numbers.

Colours come from the page's style sheet by class, so charts follow its dark and light themes. Series
also differ in dashes and marks, since not everybody sees colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auravae_cli.evaluation.page.markup import Child, Markup, number, tag

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 74, 130, 16, 48
LEAST_SPAN = 0.5  # of an axis in dB, so that tiny differences do not look large
MOST_DOTS = 600  # per row: more cannot be distinguished

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line of a chart: its label, its points, and an optional text at each point."""

    label: str
    points: Sequence[Point]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Scale:
    """Maps values to places on an axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from below ``low`` to above ``high``.

    >>> ticks(21.2, 28.9)
    [20.0, 22.0, 24.0, 26.0, 28.0, 30.0]
    """
    span = high - low if high - low > 1e-6 * max(1, abs(high)) else 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [round(step * count, 10) for count in range(first, last + 1)]


def picture_of(
    title: str, description: str, key: str, size: tuple[int, int], *parts: Child
) -> Markup:
    """Return an SVG image with a title and a description."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-title"),
        tag("desc", description, id=f"{key}-desc"),
        *parts,
        viewBox=f"0 0 {size[0]} {size[1]}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def with_table(chart: Markup, caption: Child, data: Markup) -> Markup:
    """Return a chart with its numbers, for those who cannot see it or want them."""
    numbers = tag("details", tag("summary", "The numbers"), data)
    return tag("figure", chart, tag("figcaption", caption), numbers, class_="chart")


def line_chart(
    key: str, title: str, description: str, series: Sequence[Series], axes: tuple[str, str]
) -> Markup:
    """Return lines through points; ``axes`` are the labels of x and y."""
    points = [point for one in series for point in one.points]
    across = ticks(min(x for x, _ in points), max(x for x, _ in points))
    low, high = min(y for _, y in points), max(y for _, y in points)
    spare = max(0, LEAST_SPAN - (high - low)) / 2
    up = ticks(low - spare, high + spare)
    x = Scale(across[0], across[-1], LEFT, WIDTH - RIGHT)
    y = Scale(up[0], up[-1], HEIGHT - BOTTOM, TOP)
    lines = [_line(one, place, x, y) for place, one in enumerate(series)]
    return picture_of(
        title,
        description,
        key,
        (WIDTH, HEIGHT),
        _axes(x, y, across, up, axes),
        lines,
        _labels(series, x, y),
    )


def _axes(
    x: Scale, y: Scale, across: list[float], up: list[float], axes: tuple[str, str]
) -> list[Markup]:
    grid = [
        tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid") for value in up
    ]
    numbers = [
        tag("text", f"{value:g}", x=LEFT - 8, y=y(value) + 4, class_="tick end") for value in up
    ]
    numbers += [
        tag("text", f"{value:g}", x=x(value), y=HEIGHT - BOTTOM + 18, class_="tick middle")
        for value in across
    ]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    names = [
        tag("text", axes[0], x=(x.start + x.end) / 2, y=HEIGHT - 8, class_="axis middle"),
        tag(
            "text", axes[1], transform=f"translate(13 {middle:g}) rotate(-90)", class_="axis middle"
        ),
    ]
    return [*grid, *numbers, *names]


def _line(one: Series, place: int, x: Scale, y: Scale) -> Markup:
    path = " ".join(f"{'ML'[n > 0]}{x(a):g} {y(b):g}" for n, (a, b) in enumerate(one.points))
    marks = [mark(x(a), y(b), place) for a, b in one.points]
    notes, last = [], None
    for (a, b), note in zip(one.points, one.notes, strict=False):
        below = a == last  # if two are above each other
        notes.append(
            tag("text", note, x=x(a), y=y(b) + (20 if below else -10), class_="tick middle")
        )
        last = a
    return tag("g", tag("path", d=path, class_="line"), marks, notes, class_=f"series s{place % 6}")


def mark(x: float, y: float, place: int) -> Markup:
    """Return the mark of a series: a circle, a square, a triangle, a diamond, ..."""
    shapes = (
        lambda: tag("circle", cx=x, cy=y, r=4),
        lambda: tag("rect", x=x - 3.6, y=y - 3.6, width=7.2, height=7.2),
        lambda: tag("path", d=f"M{x:g} {y - 5:g} l5 9 h-10 z"),
        lambda: tag("path", d=f"M{x:g} {y - 5.5:g} l5.5 5.5 -5.5 5.5 -5.5 -5.5 z"),
    )
    return shapes[place % len(shapes)]()


def _labels(series: Sequence[Series], x: Scale, y: Scale) -> list[Markup]:
    """Return the name of each line at its end, moved apart if they would overlap."""
    ends = sorted((y(one.points[-1][1]), place, one.label) for place, one in enumerate(series))
    labels, last = [], -math.inf
    for height, place, label in ends:
        last = max(height, last + 16)
        shown = label if len(label) <= 16 else f"{label[:15]}…"
        labels.append(
            tag("text", shown, x=x.end + 10, y=last + 4, class_=f"label series s{place % 6}")
        )
    return labels


def spread_chart(
    key: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[float]]], axis: str
) -> Markup:
    """Return a row of dots for each label, and a stroke at the mean."""
    values = [value for _, row in rows for value in row]
    spare = max(0, LEAST_SPAN - (max(values) - min(values))) / 2
    across, height = ticks(min(values) - spare, max(values) + spare, 8), 58
    x = Scale(across[0], across[-1], 20, WIDTH - 20)
    bottom = 12 + height * len(rows)
    parts: list[Markup] = []
    for value in across:
        parts.append(tag("line", x1=x(value), x2=x(value), y1=12, y2=bottom, class_="grid"))
        parts.append(tag("text", f"{value:g}", x=x(value), y=bottom + 18, class_="tick middle"))
    for place, (label, row) in enumerate(rows):
        middle, mean = 12 + height * place + 38, x(sum(row) / len(row))
        shown = sorted(row)[:: -(-len(row) // MOST_DOTS)]
        dots = [tag("circle", cx=x(value), cy=middle, r=5, class_="dot") for value in shown]
        stroke = tag("line", x1=mean, x2=mean, y1=middle - 13, y2=middle + 13, class_="mean")
        name = tag(
            "text", f"{label}: mean {sum(row) / len(row):.2f}", x=20, y=middle - 17, class_="label"
        )
        parts.append(tag("g", dots, stroke, name, class_=f"series s{place % 6}"))
    parts.append(tag("text", axis, x=WIDTH / 2, y=bottom + 40, class_="axis middle"))
    return picture_of(title, description, key, (WIDTH, bottom + 48), *parts)


def histograms(
    key: str, title: str, description: str, cells: Sequence[tuple[str, Sequence[int]]], clamp: float
) -> Markup:
    """Return a small histogram per channel over [-clamp, clamp], four in a row, each with its own scale."""
    width, height, gap = 150, 76, 12
    parts = []
    for place, (label, counts) in enumerate(cells):
        left, top = place % 4 * (width + gap), place // 4 * (height + gap + 20)
        most = max(1, *counts)
        step = width / len(counts)
        path = f"M0 {height}" + "".join(
            f"V{height - height * count / most:.1f}h{step:.4g}" for count in counts
        )
        parts.append(
            tag(
                "g",
                tag("text", label, x=0, y=12, class_="label"),
                tag(
                    "g",
                    tag("path", d=f"{path}V{height}z", class_="area"),
                    transform="translate(0 18)",
                ),
                tag("line", x1=width / 2, x2=width / 2, y1=18, y2=18 + height, class_="zero"),
                tag("line", x1=0, x2=width, y1=18 + height, y2=18 + height, class_="grid"),
                transform=f"translate({left} {top})",
            )
        )
    rows = -(-len(cells) // 4)
    bottom = rows * (height + gap + 20)
    ends = ((-clamp, 0, "start"), (0, width / 2, "middle"), (clamp, width, "end"))
    parts += [
        tag("text", f"{value:g}", x=x, y=bottom + 10, class_=f"tick {anchor}")
        for value, x, anchor in ends
    ]
    return picture_of(title, description, key, (4 * width + 3 * gap, bottom + 16), *parts)


def correlations(
    key: str, title: str, description: str, matrix: Sequence[Sequence[float | None]]
) -> Markup:
    """Return a matrix of correlations: blue is negative, red positive, full colour is 1."""
    side, left = 30, 32
    parts = []
    for row, values in enumerate(matrix):
        parts.append(tag("text", row, x=left - 6, y=left + side * row + 19, class_="tick end"))
        parts.append(tag("text", row, x=left + side * row + 15, y=left - 8, class_="tick middle"))
        parts += [
            tag(
                "rect",
                x=left + side * column,
                y=left + side * row,
                width=side - 1,
                height=side - 1,
                class_="negative" if value < 0 else "positive",
                fill_opacity=round(abs(value), 2),
            )
            for column, value in enumerate(values)
            if value is not None
        ]
    whole = left + side * len(matrix)
    frame = tag("rect", x=left, y=left, width=whole - left, height=whole - left, class_="frame")
    return picture_of(title, description, key, (whole + 2, whole + 2), frame, *parts)


def decibels_of(value: float | None) -> str:
    """Format PSNR; pictures that are reconstructed exactly have none."""
    return "exact" if value is None else number(value, "{:.2f}")
