"""auravae bench"""

from __future__ import annotations

import re
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from auravae_cli.cli.reports.followed import Followed
from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import tell, tell_json
from auravae_cli.defaults import DEFAULT_MODEL

if TYPE_CHECKING:
    from auravae_cli.forecast.benchmark import Benchmark


class Operation(str, Enum):
    """The operations that can be measured."""

    encode = "encode"  # type: ignore[assignment] # a name that str has, too
    decode = "decode"
    flip = "flip"
    startup = "startup"


def bench(
    model: opt.Model = DEFAULT_MODEL,
    sizes: Annotated[
        Optional[list[str]],
        typer.Option(
            "--size",
            metavar="N|WxH",
            help="Size of pictures, in multiples of 8. Repeatable. Default: 256 and 512.",
        ),
    ] = None,
    only: Annotated[
        Optional[list[Operation]],
        typer.Option(
            "--only",
            metavar="NAME",
            help="Measure only encode, decode, flip or startup. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object on standard output.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = False,
    quiet: opt.Quiet = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Run N pictures together.", rich_help_panel=opt.RUNNING
        ),
    ] = 1,
    repeats: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Measure each N times, after one warm-up.",
            rich_help_panel=opt.RUNNING,
        ),
    ] = 5,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    memory: opt.Memory = None,
) -> None:
    """Measure how fast a model runs here, compared with the peak of this machine.

    Examples:

        auravae bench
        auravae bench --only decode --size 256

    Measures encode, decode and flip at several sizes with their peak memory,
    and how soon commands start. The peak is the speed of a large matrix
    product; for flips, that of a large copy.
    """
    from auravae_cli.cli.shared.numbers import parse_bytes
    from auravae_cli.forecast.benchmark import OPERATIONS, SIZES, benchmark

    with Followed(hidden=quiet) as progress:
        found = benchmark(
            model,
            sizes=tuple(read_side(text) for text in sizes or ()) or SIZES,
            operations=tuple(op for op in OPERATIONS if not only or Operation(op) in only),
            batch_size=batch_size,
            repeats=repeats,
            device=device,
            dtype=dtype.value,
            memory=parse_bytes(memory, "--memory"),
            progress=progress,
        )
    if as_json:
        rows = [result.to_json(found.peaks) for result in found.results]
        tell_json({"machine": found.machine, "peaks": asdict(found.peaks), "results": rows})
    else:
        _print(found)


def read_side(text: str) -> tuple[int, int]:
    """Parse ``512`` or ``768x512`` to (height, width). Raises typer.BadParameter if it is malformed."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not match or height % 8 or width % 8:
        raise typer.BadParameter(
            f"{text!r}: expected N or WxH, multiples of 8, such as 512 or 768x512",
            param_hint="--size",
        )
    return height, width


def _print(found: Benchmark) -> None:
    from auravae_cli.cli.reports.outcomes import print_table

    facts, peaks = found.machine, found.peaks
    where = facts.get("gpu", f"{facts['cpu']}, {facts['threads']} threads")
    title = f"{facts['model']} in {facts['dtype']} on {where}, torch {facts['torch']}"
    columns = [
        "",
        "size",
        "batch",
        "median",
        "quartiles",
        "pictures/s",
        "memory",
        "speed",
        "of peak",
    ]
    print_table(title, columns, [_row(result.to_json(peaks)) for result in found.results])
    line = f"peaks here: matrix product {peaks.gflops:,.0f} GFLOP/s, copy {peaks.gbytes:.1f} GB/s"
    tell(f"{line}; operations are nominal, of direct convolutions")


def _row(numbers: dict[str, Any]) -> list[str]:
    size, memory = numbers["size"], numbers["peak_memory_bytes"]
    speed = f"{numbers['gflops']:,.0f} GFLOP/s" if "gflops" in numbers else ""
    if "gbytes" in numbers:
        speed = f"{numbers['gbytes']:.1f} GB/s"
    low, high = map(_time, numbers["quartiles_seconds"])
    return [
        numbers["operation"],
        f"{size[1]} x {size[0]}" if size else "",
        str(numbers["batch_size"]) if size else "",
        _time(numbers["median_seconds"]),
        f"{low} to {high}",
        f"{numbers['pictures_per_second']:,.3g}" if size else "",
        "" if memory is None else f"{memory / 2**20:,.0f} MiB",
        speed,
        f"{numbers['share_of_peak']:.0%}" if "share_of_peak" in numbers else "",
    ]


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} us"
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
