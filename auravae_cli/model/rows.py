"""Feature maps that are computed row by row, as they are asked for.

A convolution needs a row more on each side, a norm the statistics of the whole picture, attention
the whole picture: everything else follows from rows alone. So strips of rows can be computed side by
side, and a map that does not fit into memory can be computed again when it is asked for again. This
is exact, and no tiles are blended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from auravae_cli.model.crew import num_threads, run_all
from auravae_cli.model.norms import BLOCK_ROWS, Blocks, Statistics

Shape = tuple[int, int, int, int]

LIVE_STRIPS = 8  # of a strip's size, while it is made
CACHED_BYTES = 5 << 19  # of a strip, so that what is done to it next finds it in a cache
PAYING_ROWS = 12  # times channels over width: fewer, and weights are transformed too often


class Rows:
    """A feature map [B, C, H, W].

    ``row_nbytes`` is what a row of it takes, or of what it is computed from, where that takes more.
    """

    def __init__(
        self, shape: Shape, dtype: torch.dtype, device: torch.device, source_row_nbytes: int = 0
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.row_nbytes = max(1, self.nbytes // shape[2], source_row_nbytes)

    @property
    def nbytes(self) -> int:
        """The bytes of the whole map."""
        return math.prod(self.shape) * self.dtype.itemsize

    def like(
        self, channels: int | None = None, height: int | None = None, width: int | None = None
    ) -> tuple[Shape, torch.dtype, torch.device]:
        """The shape, with what differs, the number format and the device of a map made from this."""
        batch, *sizes = self.shape
        c, h, w = (new or old for new, old in zip((channels, height, width), sizes, strict=True))
        return (batch, c, h, w), self.dtype, self.device

    def fill(self, out: Tensor, start: int) -> None:
        """Write the rows from ``start`` on into ``out`` [B, C, n, W]."""
        raise NotImplementedError

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of it, [B, C, stop - start, W], not to be overwritten."""
        batch, channels, _, width = self.shape
        out = self.empty((batch, channels, stop - start, width))
        self.fill(out, start)
        return out

    def window(self, start: int, stop: int, right: int = 0) -> Tensor:
        """The same, contiguous, zeros for rows outside the picture, and ``right`` columns of zeros."""
        batch, channels, height, width = self.shape
        first, last = max(0, start), min(height, stop)
        out = self.empty((batch, channels, stop - start, width + right))
        out[:, :, : first - start] = 0
        out[:, :, last - start :] = 0
        out[..., width:] = 0
        self.fill(out[:, :, first - start : last - start, :width], first)
        return out

    def empty(self, shape: Shape) -> Tensor:
        """Memory for features like these."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)


class Kept(Rows):
    """A feature map in memory, with the statistics of its blocks where they are known."""

    def __init__(self, values: Tensor, statistics: Statistics | None = None) -> None:
        batch, channels, height, width = values.shape
        super().__init__((batch, channels, height, width), values.dtype, values.device)
        self.values, self.statistics = values, statistics

    def fill(self, out: Tensor, start: int) -> None:
        out.copy_(self.rows(start, start + out.shape[2]))

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[:, :, start:stop]


class Slab(Rows):
    """Some rows of a map, in memory."""

    def __init__(self, source: Rows, start: int, stop: int) -> None:
        super().__init__(*source.like(), source.row_nbytes)
        self._values, self._start = source.rows(start, stop), start

    def fill(self, out: Tensor, start: int) -> None:
        out.copy_(self.rows(start, start + out.shape[2]))

    def rows(self, start: int, stop: int) -> Tensor:
        return self._values[:, :, start - self._start : stop - self._start]


def keep(source: Rows, room: int, groups: int | None = None, values: Tensor | None = None) -> Kept:
    """The whole feature map, computed in strips that take ``room`` bytes, about, while they are made.

    Args:
        groups: those of the norm that follows, if one does; its statistics are taken on the way.
        values: where to write it, of its shape; may be the memory of a map of which each row of
            ``source`` needs the same row alone.
    """
    out = source.empty(source.shape) if values is None else values
    blocks = None if groups is None else Blocks(source.shape, groups)

    def compute(start: int, stop: int) -> None:
        source.fill(out[:, :, start:stop], start)
        if blocks is not None:
            blocks.add(out[:, :, start:stop], start)

    _in_strips(source, room, compute)
    return Kept(out, None if blocks is None else blocks.merged())


def statistics(source: Rows, groups: int, room: int) -> Statistics:
    """The means and deviations of the groups of channels over the whole map."""
    if isinstance(source, Kept) and source.statistics is not None:
        return source.statistics
    blocks = Blocks(source.shape, groups)
    _in_strips(source, room, lambda start, stop: blocks.add(source.rows(start, stop), start))
    return blocks.merged()


def _in_strips(source: Rows, room: int, compute: Callable[[int, int], None]) -> None:
    """Call ``compute(start, stop)`` for all strips, side by side where there are threads for them."""
    least = LIVE_STRIPS * BLOCK_ROWS * source.row_nbytes
    threads = max(1, min(num_threads(source.device), room // least))
    cuts = _cuts(source, room, threads)
    run_all([partial(compute, *cut) for cut in pairwise(cuts)], threads)


def _cuts(source: Rows, room: int, threads: int) -> list[int]:
    """Where to cut it into strips: whole blocks that fit the room and at best a cache, alike in size,
    as many as threads or a multiple of that."""
    _, channels, height, width = source.shape
    fits = max(BLOCK_ROWS, strip_rows(source, room // threads))
    pays = PAYING_ROWS * channels // width
    if height < threads * pays and fits >= height:
        return [0, height]  # in one strip, so that the convolutions share their channels out
    best = min(fits, max(CACHED_BYTES // source.row_nbytes, pays, BLOCK_ROWS))
    rounds = -(-height // (best * threads))
    blocks = -(-height // BLOCK_ROWS)
    num_strips = min(rounds * threads, blocks)
    cuts = [round(i * blocks / num_strips) * BLOCK_ROWS for i in range(num_strips)]
    return [*cuts, height]


def strip_rows(source: Rows, room: int) -> int:
    """How many rows fit in ``room`` with what they are made from."""
    return max(1, room // (LIVE_STRIPS * source.row_nbytes))


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """The first and last row of every strip."""
    for start in range(0, height, strip):
        yield start, min(height, start + strip)
