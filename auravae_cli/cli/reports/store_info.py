"""The output of `auravae info` for a store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from auravae_cli.cli.terminal.lines import tell_json
from auravae_cli.cli.terminal.live import Live

if TYPE_CHECKING:
    from auravae_cli.latents.statistics import ChannelStatistics
    from auravae_cli.store.survey import StoreInfo

_LEVELS = " ▁▂▃▄▅▆▇█"


def print_store(location: str, *, quick: bool, as_json: bool) -> None:
    """Print the facts of a store. Raises StoreError."""
    from auravae_cli.files.storage import open_storage
    from auravae_cli.store.survey import count_values, survey

    storage = open_storage(location)
    with Live(f"reading {location}"):
        info = survey(storage)
        statistics = None if quick else count_values(storage, info)
    if as_json:
        shapes = {"shapes": _shapes(info)}
        values = {} if statistics is None else _values(statistics)
        tell_json({"store": location} | facts(info) | shapes | values)
        return
    _print_tables(location, info, statistics)


def facts(info: StoreInfo) -> dict[str, Any]:
    """Return settings and counts as JSON types."""
    content = info.settings.to_json()
    return {
        "shards": info.shards,
        **({"missing_shards": info.missing_shards} if info.missing_shards else {}),
        "rows": info.rows,
        "failures": info.failures,
        "bytes": info.bytes,
        **{name: value for name, value in content.items() if not name.startswith("format")},
        **({"certificate": info.certificate} if info.certificate else {}),
    }


def histogram(counts: list[int]) -> str:
    """Return a character per bin, as high as its count relative to the largest; every count shows.

    >>> histogram([0, 1, 500, 1000])
    ' ▁▄█'
    """
    largest = max([1, *counts])
    return "".join(_LEVELS[math.ceil(count * (len(_LEVELS) - 1) / largest)] for count in counts)


def _print_tables(location: str, info: StoreInfo, statistics: ChannelStatistics | None) -> None:
    from auravae_cli.cli.reports.outcomes import print_table
    from auravae_cli.cli.reports.values import show

    print_table(location, ["", ""], [[name, show(value)] for name, value in facts(info).items()])
    shapes = [
        [show(shape["cells"]), show(shape["pixels"][::-1]), shape["rows"]]
        for shape in _shapes(info)
    ]
    print_table("", ["cells, h x w", "pixels, W x H", "rows"], shapes)
    if statistics is None:
        return
    values = _values(statistics)
    clamp = show(statistics.clamp)
    channels = zip(
        values["mean_per_channel"],
        values["deviation_per_channel"],
        values["minimum_per_channel"],
        values["maximum_per_channel"],
        strict=True,
    )
    rows = [
        [str(number), *map(show, channel), f"|{histogram(counts)}|"]
        for number, (channel, counts) in enumerate(
            zip(channels, values["histogram"]["counts"], strict=True)
        )
    ]
    title = f"{values['clamped']} values clamped, {values['not_finite']} not finite"
    columns = ["channel", "mean", "deviation", "minimum", "maximum", f"-{clamp} to {clamp}"]
    print_table(title, columns, rows)


def _shapes(info: StoreInfo) -> list[dict[str, Any]]:
    factor = info.settings.space.downsampling_factor
    return [
        {"cells": list(cells), "pixels": [factor * side for side in cells], "rows": rows}
        for cells, rows in info.rows_of_shape.items()
    ]


def _values(statistics: ChannelStatistics) -> dict[str, Any]:
    from auravae_cli.operations.describe import rounded

    return {
        "not_finite": statistics.not_finite,
        "clamped": statistics.clamped,
        "mean_per_channel": rounded(statistics.mean),
        "deviation_per_channel": rounded(statistics.deviation),
        "minimum_per_channel": rounded(statistics.minimum),
        "maximum_per_channel": rounded(statistics.maximum),
        "histogram": {
            "edges": statistics.edges.tolist(),
            "counts": statistics.counts.tolist(),
        },
    }
