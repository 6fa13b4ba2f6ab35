"""What a run takes before it is run: memory, strips and operations, by arithmetic alone. No torch.

A run that fits is plain: every layer on the whole picture. One that does not is streamed: in strips
of rows, with the maps in memory and the strips that its plan says (see `stripplan` and `streamed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from auravae_cli.config import IMAGE_CHANNELS, Architecture
from auravae_cli.memory import free_memory
from auravae_cli.model.operations import (
    ATTENTION,
    BLOCK,
    DOWN,
    OUT,
    UP,
    Arithmetic,
    Layer,
    layers,
    nominal_flops,
)
from auravae_cli.model.stripplan import Search, StripPlan

SHARE_OF_FREE = 0.8  # of the free memory that features may take
ADVICE = "try a smaller picture (--resize, --crop), --dtype bfloat16, or the model linear"
LINEAR_STRIP = 32 << 20  # what the linear model takes for the rows under way, measured
# Above what is counted: what the allocator leaves unused between blocks, and cannot give back.
OVERHEAD = 8 << 20
OVERHEAD_SHARE = 0.03


@dataclass(frozen=True)
class Plan:
    """How ``batch`` pictures of one size run, and what that takes.

    ``memory`` is the predicted peak in bytes beside the weights; ``flops`` are the operations, with
    those that strips repeat; ``strips`` is None for a plain run.
    """

    part: str
    batch: int
    height: int
    width: int
    memory: int
    flops: int
    strips: StripPlan | None = None

    @property
    def tiles(self) -> int:
        """Into how many strips of rows the picture is cut, at most; 1 for a plain run."""
        return 1 if self.strips is None else self.strips.most


@dataclass(frozen=True)
class Unaffordable:
    """A picture that no plan fits: what the least of them would take."""

    least: int


def plan_run(
    architecture: Architecture,
    part: str,
    size: tuple[int, int, int],
    arithmetic: Arithmetic,
    budget: int | None,
) -> Plan | Unaffordable:
    """The plan of the ``encoder`` or the ``decoder`` for (batch, height, width) pixels.

    ``budget`` is what it may take in bytes; None where that is not known.
    """
    batch, height, width = size
    memory = with_overhead(plain_peak(architecture, part, size, arithmetic))
    if budget is None or memory <= budget:
        flops = batch * nominal_flops(architecture, part, height, width)
        return Plan(part, batch, height, width, memory, flops)
    return _plan_strips(architecture, part, size, arithmetic, _rounded(budget))


def plan_linear(part: str, channels: int, size: tuple[int, int, int]) -> Plan:
    """The plan of the linear model: a product of each block with each component, always whole."""
    batch, height, width = size
    numbers = batch * height * width * IMAGE_CHANNELS
    memory = with_overhead(4 * numbers + LINEAR_STRIP)
    return Plan(part, batch, height, width, memory, 2 * channels * numbers)


def affordable_bytes(memory: int | None) -> int | None:
    """What features may take on the CPU: as asked for, else most of what is free; None: unknown."""
    if memory is not None:
        return memory
    free = free_memory()
    return None if free is None else int(free * SHARE_OF_FREE)


def refusal(found: Unaffordable, height: int, width: int, budget: int | None) -> str:
    """Why a picture does not run, and what to do about it."""
    return (
        f"not enough memory: {width} x {height} pixels take at least {megabytes(found.least)}, "
        f"and {megabytes(budget or 0)} may be used (--memory, or most of what is free); {ADVICE}"
    )


def megabytes(size: int) -> str:
    """Bytes for people, as `--memory` takes them."""
    return f"{size / 2**20:,.0f} MiB"


def _rounded(budget: int) -> int:
    """A little less, so that free memory that changes a little is planned for once."""
    step = 1 << max(0, budget.bit_length() - 6)
    return budget // step * step


@lru_cache(maxsize=256)
def _plan_strips(
    architecture: Architecture,
    part: str,
    size: tuple[int, int, int],
    arithmetic: Arithmetic,
    budget: int,
) -> Plan | Unaffordable:
    batch, height, width = size
    beside = ends(architecture, part, size, arithmetic)
    room = int((budget - OVERHEAD) / (1 + OVERHEAD_SHARE)) - beside
    search = Search(tuple(layers(architecture, part)), height, width, arithmetic)
    strips = search.cheapest(room) if batch == 1 else None
    if strips is None:
        return Unaffordable(with_overhead(search.least() + beside))
    return Plan(part, 1, height, width, with_overhead(strips.peak + beside), strips.flops, strips)


def with_overhead(size: int) -> int:
    """A number of bytes, and what the allocator adds to them."""
    return int(size * (1 + OVERHEAD_SHARE)) + OVERHEAD


def ends(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> int:
    """The bytes of a copy of what is given, float32 and as computed with."""
    batch, height, width = size
    numbers = batch * height * width * IMAGE_CHANNELS
    if part == "decoder":
        factor = architecture.downsampling_factor
        numbers = batch * (height // factor) * (width // factor) * architecture.latent_channels
    return numbers * (4 if arithmetic.itemsize == 4 else 4 + arithmetic.itemsize)


def plain_peak(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> int:
    """The most bytes that are in memory at once in a plain run."""
    batch, height, width = size
    peak = workspace = held = 0
    scale = None
    for layer in layers(architecture, part):
        pixels = batch * (height // layer.scale) * (width // layer.scale)
        if layer.scale != scale or layer.kind == OUT:
            # The caller of a level, and of what follows, holds on to its input until it is done.
            held = arithmetic.itemsize * layer.channels_in * pixels
            scale = layer.scale
        live, extra = _layer_peak(layer, (height, width), batch, arithmetic)
        workspace = max(workspace, extra)
        is_first = layer.kind in (OUT, "conv")
        peak = max(peak, live + (0 if is_first else held))
    return peak + workspace + ends(architecture, part, size, arithmetic)


def _layer_peak(
    layer: Layer, size: tuple[int, int], batch: int, arithmetic: Arithmetic
) -> tuple[int, int]:
    """The bytes of a layer's maps, with its input; and of the workspace that stays."""
    a, b = layer.channels_in, layer.channels_out
    height, width = size[0] // layer.scale, size[1] // layer.scale
    pixels = batch * height * width
    unit = arithmetic.itemsize * pixels

    def conv(before: int, after: int, factor: int = 1) -> tuple[int, int]:
        """What a 3x3 convolution takes beside input and output, and keeps."""
        sides = (factor * height, factor * width)
        if arithmetic.is_winograd(before, after, *sides):
            return 0, arithmetic.workspace(before, after, *sides)
        return arithmetic.reordered(before, after, factor**2 * pixels), 0

    if layer.kind == BLOCK:
        first, second = conv(a, b), conv(b, b)
        live = [
            unit * (2 * a + b) + first[0],  # input, normed input, hidden
            unit * (a + 3 * b) + second[0],  # input, hidden, normed, changed
        ]
        if a != b:
            live.append(unit * (a + 2 * b) + arithmetic.reordered(a, b, pixels))
        return max(live), max(first[1], second[1])
    if layer.kind == ATTENTION:
        # Input and norm, the projections and their copy by heads, then the result.
        return unit * max(2 * a + 3 * a + 3 * a, 2 * a + 3 * a + 3 * a), 0
    if layer.kind == DOWN:
        return unit * (2 * a + b // 4) + arithmetic.reordered(a, b // 4, pixels), 0
    if layer.kind == UP:
        extra, kept = conv(a, b, 2)
        return unit * (a + 4 * a + 4 * b) + extra, kept
    extra, kept = conv(a, b)
    return unit * ((2 * a if layer.kind == OUT else a) + b) + extra, kept
