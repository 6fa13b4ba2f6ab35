"""Feature maps that are computed row by row, on demand.

A convolution needs one more row on each side, a norm the statistics of the whole picture, attention
the whole picture: everything else depends only on rows. So strips of rows can be computed in parallel,
and a map that does not fit into memory can be recomputed when it is needed again. This is exact, and no
tiles are blended. Our own kernels compute whole tiles, whichever rows are requested, because tiles of
other rows would round differently; so strips change no bit of their results. `planning.strip_costs` has
the cost of computing rows.

Who computes, and on what memory, is a `Half`'s affair: arrays of numpy (see `native_half`), or tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from auravae_cli.model.cpu.block_norms import BlockStatistics, Float, Statistics
from auravae_cli.model.planning.strip_plan import Pass, cuts
from auravae_cli.model.spec.config import NORM_GROUPS

Shape = tuple[int, int, int, int]


class Convolution(Protocol):
    """A convolution that is ready to run; ``unit`` is how many rows it computes together.

    Each method writes rows from ``start`` on into ``out`` [B, C, n, W].
    """

    @property
    def channels_out(self) -> int: ...

    @property
    def unit(self) -> int: ...

    def same(self, out: Any, source: LazyMap, start: int, residual: Any = None) -> None:
        """3x3, keeping the size, plus ``residual``, which can be ``out``."""

    def doubled(self, out: Any, source: LazyMap, start: int) -> None:
        """3x3 over ``source`` with every pixel four times."""

    def halved(self, out: Any, source: LazyMap, start: int) -> None:
        """3x3 with stride 2, with zeros beyond the right and the bottom."""

    def mixed(self, out: Any, source: LazyMap, start: int) -> None:
        """1x1."""


class Attention(Protocol):
    """Attention over a map: keys and values of all rows are looked up before any row attends.

    ``memory`` holds ``result`` [B, C, H, W], the map with what was attended to.
    """

    @property
    def memory(self) -> Any: ...

    @property
    def result(self) -> Any: ...

    def look_up(self, start: int, stop: int) -> None:
        """Make the keys and values of rows."""

    def attend(self, start: int, stop: int) -> None:
        """Make rows of the result."""


class Half(Protocol):
    """An encoder or a decoder, ready to run in strips; layers go by their names in checkpoints."""

    itemsize: int

    def empty(self, count: int) -> Any:
        """Return flat memory for ``count`` numbers."""

    def convolution(self, name: str) -> Convolution:
        """Return a convolution."""

    def norm(self, name: str, known: Statistics) -> Any:
        """Return a group norm with known statistics."""

    def measure(self, x: Any, means: Float, spreads: Float) -> None:
        """Measure blocks, as `BlockStatistics` needs it."""

    def attention(self, name: str, source: StoredMap, norm: Any) -> Attention:
        """Return attention over a map with its norm."""

    def run_all(self, tasks: Iterable[Callable[[], None]], threads: int) -> None:
        """Run all tasks, up to ``threads`` at a time."""


class LazyMap:
    """A feature map [B, C, H, W].

    ``unit`` is the number of rows that are always computed together, counted from the top.
    """

    unit = 1

    def __init__(self, shape: Shape, half: Half) -> None:
        self.shape, self.half = shape, half

    def like(self, channels: int, height: int | None = None, width: int | None = None) -> Shape:
        """Return the shape of a map made from this one."""
        return self.shape[0], channels, height or self.shape[2], width or self.shape[3]

    def fill(self, out: Any, start: int) -> None:
        """Write the rows from ``start`` on into ``out`` [B, C, n, W]: whole units."""
        raise NotImplementedError

    def write(self, out: Any, start: int) -> None:
        """Write any rows from ``start`` on into ``out``."""
        stop = start + out.shape[2]
        if self.in_units(start, stop) == (start, stop):
            self.fill(out, start)
        else:
            out[...] = self.rows(start, stop)

    def in_units(self, start: int, stop: int) -> tuple[int, int]:
        """Return the rows of the units that contain some rows."""
        return start // self.unit * self.unit, min(self.shape[2], -(-stop // self.unit) * self.unit)

    def window(self, start: int, stop: int, right: int = 0) -> Any:
        """Return rows, contiguous, with zeros outside the picture, and ``right`` more columns of zeros."""
        batch, channels, height, width = self.shape
        first, last = max(0, start), min(height, stop)
        out = self.empty((batch, channels, stop - start, width + right))
        out[:, :, : first - start] = 0
        out[:, :, last - start :] = 0
        out[..., width:] = 0
        self.write(out[:, :, first - start : last - start, :width], first)
        return out

    def rows(self, start: int, stop: int) -> Any:
        """Return rows ``start`` to ``stop``, [B, C, stop - start, W], which must not be overwritten."""
        batch, channels, _, width = self.shape
        first, last = self.in_units(start, stop)
        out = self.empty((batch, channels, last - first, width))
        self.fill(out, first)
        return out[:, :, start - first : stop - first]

    def empty(self, shape: Shape) -> Any:
        """Return memory for features like these."""
        return self.half.empty(math.prod(shape)).reshape(shape)


class StoredMap(LazyMap):
    """A feature map in memory, with the statistics of its blocks if they are known.

    ``memory`` is the flat memory that it lies in, if the run has that from its buffers.
    """

    def __init__(
        self, values: Any, half: Half, memory: Any = None, known: Statistics | None = None
    ) -> None:
        batch, channels, height, width = values.shape
        super().__init__((batch, channels, height, width), half)
        self.values, self.memory, self.statistics = values, memory, known

    def fill(self, out: Any, start: int) -> None:
        out[...] = self.rows(start, start + out.shape[2])

    def rows(self, start: int, stop: int) -> Any:
        return self.values[:, :, start:stop]


class Activated(LazyMap):
    """A group norm, whose statistics are known, and SiLU: on the way into a convolution."""

    def __init__(self, source: LazyMap, norm: Any) -> None:
        super().__init__(source.shape, source.half)
        self.source, self.norm = source, norm

    def fill(self, out: Any, start: int) -> None:  # our own kernels do this on the way
        self.norm.activate(out, self.source.rows(start, start + out.shape[2]))


class MapSlice(LazyMap):
    """Some rows of a map, in memory."""

    def __init__(self, source: LazyMap, start: int, stop: int) -> None:
        super().__init__(source.shape, source.half)
        self._values, self._start = source.rows(start, stop), start

    def fill(self, out: Any, start: int) -> None:
        out[...] = self.rows(start, start + out.shape[2])

    def rows(self, start: int, stop: int) -> Any:
        return self._values[:, :, start - self._start : stop - self._start]


def keep(source: LazyMap, how: Pass, memory: Any = None, is_measured: bool = True) -> StoredMap:
    """Return the whole feature map, in memory.

    Args:
        how: the strips to compute it in.
        memory: flat, where to write it; can be that of a map of which each row of ``source`` needs only the
            same row.
        is_measured: whether a norm follows, so that its statistics are computed as well.
    """
    count = math.prod(source.shape)
    memory = source.half.empty(count) if memory is None else memory
    out = memory[:count].reshape(source.shape)
    blocks = (
        BlockStatistics(source.shape, NORM_GROUPS, source.half.measure) if is_measured else None
    )

    def compute(start: int, stop: int) -> None:
        source.fill(out[:, :, start:stop], start)
        if blocks is not None:
            blocks.add(out[:, :, start:stop], start)

    _in_strips(source, how, compute)
    return StoredMap(out, source.half, memory, None if blocks is None else blocks.merged())


def statistics(source: LazyMap, how: Pass) -> Statistics:
    """Return the means and deviations of the groups of channels over the whole map."""
    blocks = BlockStatistics(source.shape, NORM_GROUPS, source.half.measure)
    _in_strips(source, how, lambda start, stop: blocks.add(source.rows(start, stop), start))
    return blocks.merged()


def _in_strips(source: LazyMap, how: Pass, compute: Callable[[int, int], None]) -> None:
    """Call ``compute(start, stop)`` for all strips, in parallel if there are threads for them."""
    places = pairwise(cuts(source.shape[2], how.strips))
    source.half.run_all([partial(compute, *place) for place in places], how.threads)


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of every strip."""
    for start in range(0, height, strip):
        yield start, min(height, start + strip)
