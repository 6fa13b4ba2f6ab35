"""Feature maps that are computed row by row, on demand.

A convolution needs one more row on each side, a norm the statistics of the whole picture, attention
the whole picture: everything else depends only on rows. So strips of rows can be computed in parallel,
and a map that does not fit into memory can be recomputed when it is needed again. This is exact, and no
tiles are blended. Our own kernels compute whole tiles, whichever rows are requested, because tiles of
other rows would round differently; so strips change no bit of their results. `rowcosts` has the cost of
computing rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from auravae_cli.model.cpu.block_norms import Affine, BlockStatistics, Statistics
from auravae_cli.model.cpu.strip_threads import run_all
from auravae_cli.model.network.layers import silu
from auravae_cli.model.planning.strip_plan import Pass, cuts

Shape = tuple[int, int, int, int]


class LazyMap:
    """A feature map [B, C, H, W].

    ``unit`` is the number of rows that are always computed together, counted from the top.
    """

    unit = 1

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device

    @property
    def nbytes(self) -> int:
        """The bytes of the whole map."""
        return math.prod(self.shape) * self.dtype.itemsize

    def like(
        self, channels: int | None = None, height: int | None = None, width: int | None = None
    ) -> tuple[Shape, torch.dtype, torch.device]:
        """Return shape, with changes, number format and device of a map made from this one."""
        batch, *sizes = self.shape
        c, h, w = (new or old for new, old in zip((channels, height, width), sizes, strict=True))
        return (batch, c, h, w), self.dtype, self.device

    def fill(self, out: Tensor, start: int) -> None:
        """Write the rows from ``start`` on into ``out`` [B, C, n, W]: whole units."""
        raise NotImplementedError

    def write(self, out: Tensor, start: int) -> None:
        """Write any rows from ``start`` on into ``out``."""
        stop = start + out.shape[2]
        if self.in_units(start, stop) == (start, stop):
            self.fill(out, start)
        else:
            out.copy_(self.rows(start, stop))

    def in_units(self, start: int, stop: int) -> tuple[int, int]:
        """Return the rows of the units that contain some rows."""
        return start // self.unit * self.unit, min(self.shape[2], -(-stop // self.unit) * self.unit)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop``, [B, C, stop - start, W], which must not be overwritten."""
        batch, channels, _, width = self.shape
        first, last = self.in_units(start, stop)
        out = self.empty((batch, channels, last - first, width))
        self.fill(out, first)
        return out[:, :, start - first : stop - first]

    def window(self, start: int, stop: int, right: int = 0) -> Tensor:
        """Return rows, contiguous, with zeros outside the picture, and ``right`` more columns of zeros."""
        batch, channels, height, width = self.shape
        first, last = max(0, start), min(height, stop)
        out = self.empty((batch, channels, stop - start, width + right))
        out[:, :, : first - start] = 0
        out[:, :, last - start :] = 0
        out[..., width:] = 0
        self.write(out[:, :, first - start : last - start, :width], first)
        return out

    def empty(self, shape: Shape) -> Tensor:
        """Return memory for features like these."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)


class StoredMap(LazyMap):
    """A feature map in memory, with the statistics of its blocks if they are known."""

    def __init__(self, values: Tensor, statistics: Statistics | None = None) -> None:
        batch, channels, height, width = values.shape
        super().__init__((batch, channels, height, width), values.dtype, values.device)
        self.values, self.statistics = values, statistics

    def fill(self, out: Tensor, start: int) -> None:
        out.copy_(self.rows(start, start + out.shape[2]))

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[:, :, start:stop]


class Activated(LazyMap):
    """A group norm, whose statistics are known, and SiLU."""

    def __init__(self, source: LazyMap, affine: Affine) -> None:
        super().__init__(*source.like())
        self.source, self.affine = source, affine

    def fill(self, out: Tensor, start: int) -> None:
        silu(self.affine.into(out, self.source.rows(start, start + out.shape[2])))


class MapSlice(LazyMap):
    """Some rows of a map, in memory."""

    def __init__(self, source: LazyMap, start: int, stop: int) -> None:
        super().__init__(*source.like())
        self._values, self._start = source.rows(start, stop), start

    def fill(self, out: Tensor, start: int) -> None:
        out.copy_(self.rows(start, start + out.shape[2]))

    def rows(self, start: int, stop: int) -> Tensor:
        return self._values[:, :, start - self._start : stop - self._start]


def keep(
    source: LazyMap, how: Pass, groups: int | None = None, values: Tensor | None = None
) -> StoredMap:
    """Return the whole feature map, in memory.

    Args:
        how: the strips to compute it in.
        groups: those of the following norm, if any; its statistics are computed as well.
        values: where to write it, of its shape; can be the memory of a map of which each row of
            ``source`` needs only the same row.
    """
    out = source.empty(source.shape) if values is None else values
    blocks = None if groups is None else BlockStatistics(source.shape, groups)

    def compute(start: int, stop: int) -> None:
        source.fill(out[:, :, start:stop], start)
        if blocks is not None:
            blocks.add(out[:, :, start:stop], start)

    _in_strips(source, how, compute)
    return StoredMap(out, None if blocks is None else blocks.merged())


def statistics(source: LazyMap, groups: int, how: Pass) -> Statistics:
    """Return the means and deviations of the groups of channels over the whole map."""
    blocks = BlockStatistics(source.shape, groups)
    _in_strips(source, how, lambda start, stop: blocks.add(source.rows(start, stop), start))
    return blocks.merged()


def _in_strips(source: LazyMap, how: Pass, compute: Callable[[int, int], None]) -> None:
    """Call ``compute(start, stop)`` for all strips, in parallel if there are threads for them."""
    places = pairwise(cuts(source.shape[2], how.strips))
    run_all([partial(compute, *place) for place in places], how.threads)


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of every strip."""
    for start in range(0, height, strip):
        yield start, min(height, start + strip)
