"""The cost of a run before it runs: memory, strips and operations. Does not need torch.

On a CPU, a network runs in strips of rows, with the maps in memory that its plan names (see `strip_plan`
and `strip_runner`). On a GPU, a run that fits is plain: every layer on the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from auravae_cli.machine.memory import free_memory
from auravae_cli.model.planning.layer_costs import (
    ATTENTION,
    BLOCK,
    CONV,
    DOWN,
    OUT,
    UP,
    Arithmetic,
    Layer,
    layers,
    nominal_flops,
)
from auravae_cli.model.spec.config import IMAGE_CHANNELS, Architecture

if TYPE_CHECKING:
    from auravae_cli.model.planning.strip_plan import Search, StripPlan

SHARE_OF_FREE = 0.8  # of the free memory, for features
ADVICE = "try a smaller picture (--resize, --crop) or the model linear"
LINEAR_STRIP = 4096 * 192  # numbers of the blocks that the linear model works on together, and
LIVE_LINEAR = 5  # how many copies of them are in memory, measured
# Beside what is counted: memory between blocks that the allocator can neither use nor return.
OVERHEAD = 8 << 20
OVERHEAD_SHARE = 0.06


@dataclass(frozen=True)
class Plan:
    """How ``batch`` pictures of one size run, and the cost.

    ``memory`` is the predicted peak in bytes beside the weights; ``flops`` are the operations, including
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
        """The number of strips of a map that is computed more than once; 1 if there is none."""
        return 1 if self.strips is None else self.strips.tiles


@dataclass(frozen=True)
class Unaffordable:
    """A picture that no plan fits, with the memory of the smallest plan."""

    least: int


def plan_run(
    architecture: Architecture,
    part: str,
    size: tuple[int, int, int],
    arithmetic: Arithmetic,
    budget: int | None,
) -> Plan | Unaffordable:
    """Return the plan of the ``encoder`` or the ``decoder`` for (batch, height, width) pixels.

    ``budget`` limits its memory in bytes; None if that is not known.
    """
    plan = ample_plan(architecture, part, size, arithmetic)
    if budget is None or plan.memory <= budget:
        return plan
    return _tight_plan(architecture, part, size, arithmetic, _rounded(budget))


@lru_cache(maxsize=256)
def ample_plan(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> Plan:
    """Return the plan with ample memory."""
    batch, height, width = size
    if arithmetic.is_plain:
        flops = batch * nominal_flops(architecture, part, height, width)
        peak = plain_peak(architecture, part, size, arithmetic)
        return Plan(part, batch, height, width, with_overhead(peak), flops)
    strips = _search(architecture, part, size, arithmetic).everything_kept()
    memory = with_overhead(strips.peak + ends(architecture, part, size, arithmetic))
    return Plan(part, batch, height, width, memory, strips.flops, strips)


@lru_cache(maxsize=256)
def _tight_plan(
    architecture: Architecture,
    part: str,
    size: tuple[int, int, int],
    arithmetic: Arithmetic,
    budget: int,
) -> Plan | Unaffordable:
    """Return the plan within a budget."""
    batch, height, width = size
    beside = ends(architecture, part, size, arithmetic)
    room = int((budget - OVERHEAD) / (1 + OVERHEAD_SHARE)) - beside
    search = _search(architecture, part, size, arithmetic)
    strips = search.cheapest(room) if batch == 1 else None
    if strips is None:
        return Unaffordable(least_memory(architecture, part, size, arithmetic))
    memory = with_overhead(strips.peak + beside)
    return Plan(part, 1, height, width, memory, strips.flops, strips)


@lru_cache(maxsize=256)
def least_memory(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> int:
    """Return about the fewest bytes for which there is a plan."""
    found = _search(architecture, part, size, arithmetic).least()
    return with_overhead(found + ends(architecture, part, size, arithmetic))


def _search(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> Search:
    from auravae_cli.model.planning.strip_plan import Search  # the linear model has no strips

    return Search(tuple(layers(architecture, part)), *size, arithmetic)


def plan_linear(part: str, channels: int, size: tuple[int, int, int]) -> Plan:
    """Return the plan of the linear model: a product of each block with each component, in short strips."""
    batch, height, width = size
    numbers = batch * height * width * IMAGE_CHANNELS
    memory = 4 * LIVE_LINEAR * min(numbers, batch * LINEAR_STRIP)
    if part == "decoder":
        memory += 4 * numbers  # the result
    return Plan(part, batch, height, width, memory, 2 * channels * numbers)


def affordable_bytes(memory: int | None, held: int = 0) -> int | None:
    """Return the bytes for features on the CPU: as requested, or most of the free memory; None if unknown.

    ``held`` bytes are already reserved for them; less than none are still to be taken, by weights.
    """
    if memory is not None:
        return memory
    free = free_memory()
    return None if free is None else max(0, int((free + held) * SHARE_OF_FREE))


def refusal(found: Unaffordable, height: int, width: int, budget: int | None) -> str:
    """Return why a picture does not run, and what to do about it."""
    return (
        f"not enough memory: {width} x {height} pixels take at least {megabytes(found.least)}, "
        f"and {megabytes(budget or 0)} may be used (--memory, or most of what is free); {ADVICE}"
    )


def megabytes(size: int) -> str:
    """Return bytes as text, in the form of `--memory`."""
    return f"{size / 2**20:,.0f} MiB"


def _rounded(budget: int) -> int:
    """Round down, so that free memory which changes a little is planned for once."""
    step = 1 << max(0, budget.bit_length() - 6)
    return budget // step * step


def sufficient(size: int) -> int:
    """Return a budget that is at least ``size`` after rounding."""
    return size * 17 // 16


def with_overhead(size: int) -> int:
    """Add the allocator's overhead to a number of bytes."""
    return int(size * (1 + OVERHEAD_SHARE)) + OVERHEAD


def ends(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> int:
    """Return the bytes of a copy of the input, in float32 and in the compute dtype, and of a float32 result."""
    batch, height, width = size
    factor = architecture.downsampling_factor
    pixels = batch * height * width * IMAGE_CHANNELS
    cells = batch * (height // factor) * (width // factor) * architecture.latent_channels
    given, result = (cells, pixels) if part == "decoder" else (pixels, cells)
    if arithmetic.itemsize == 4:
        return 4 * given  # the result is counted with the layers
    return (4 + arithmetic.itemsize) * given + 4 * result


def plain_peak(
    architecture: Architecture, part: str, size: tuple[int, int, int], arithmetic: Arithmetic
) -> int:
    """Return the peak memory of a plain run in bytes."""
    batch, height, width = size
    if arithmetic.live_features is not None:
        features = batch * height * width * architecture.widths[0] * arithmetic.itemsize
        return arithmetic.live_features * features
    peak = held = 0
    scale = None
    for layer in layers(architecture, part):
        pixels = batch * (height // layer.scale) * (width // layer.scale)
        if layer.kind in (CONV, OUT):
            held = 0
        elif layer.scale != scale:
            # The caller of a level keeps its input until it is done.
            held, scale = arithmetic.itemsize * layer.channels_in * pixels, layer.scale
        peak = max(peak, held + _layer_peak(layer, pixels, arithmetic))
    return peak + ends(architecture, part, size, arithmetic)


def _layer_peak(layer: Layer, pixels: int, arithmetic: Arithmetic) -> int:
    """Return the bytes of a layer's maps with its input, and of copies in a method's layout."""
    a, b = layer.channels_in, layer.channels_out
    unit = arithmetic.itemsize * pixels
    if layer.kind == BLOCK:
        hidden = 2 * a + b + max(a, b)  # input, normed, hidden, and a copy
        changed = a + 3 * b + b  # input, hidden, normed, changed, and a copy
        shortcut = a + 2 * b + max(a, b) if a != b else 0
        return unit * max(hidden, changed, shortcut)
    if layer.kind == ATTENTION:
        return unit * (2 * a + 3 * a + 3 * a)  # input, normed, projected, and that by heads
    if layer.kind == DOWN:
        return unit * (2 * a + b // 4 + a)
    if layer.kind == UP:
        return unit * (a + 4 * a + 4 * b + 4 * max(a, b))
    return unit * ((2 * a if layer.kind == OUT else a) + b + max(a, b))
