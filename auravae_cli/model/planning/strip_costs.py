"""The cost of computing some rows of a feature map: bytes and operations.

Each class mirrors the one of its name in `lazy_maps` and `lazy_layers`: change both together. Rows are
counted, not placed: strips are whole blocks, and the rows needed around them are taken to extend
equally up and down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from auravae_cli.model.planning.layer_costs import (
    POINTS,
    TILE_ROWS,
    Arithmetic,
    conv_flops,
    native_workspace,
    products_workspace,
)


@dataclass(frozen=True)
class Cost:
    """The cost of some rows: the peak bytes beside them, a thread's permanent bytes, and operations."""

    peak: int = 0
    workspace: int = 0
    flops: int = 0


class Node:
    """A feature map [B, C, H, W] that is computed row by row.

    ``halo`` is how many rows more on each side it is computed from, of what is in memory;
    ``row_nbytes`` what a row takes, or of what it is computed from, where that takes more; ``is_native``
    whether one of our own kernels makes it from its source's rows, and writes it where it goes;
    ``makes_weights`` as `Arithmetic` says.
    """

    is_native = False
    makes_weights = True
    unit = 1  # rows that are always computed together

    def __init__(
        self,
        arithmetic: Arithmetic,
        shape: tuple[int, int, int, int],
        sources: tuple[Node, ...] = (),
        halo: float = 0,
        source_row_nbytes: int = 0,
    ) -> None:
        self.arithmetic, self.shape, self.sources, self.halo = arithmetic, shape, sources, halo
        self.batch, self.channels, self.height, self.width = shape
        self.row_nbytes = max(1, self.of_rows(1), source_row_nbytes)
        self._costs: dict[tuple[int, bool], Cost] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of the whole map."""
        return self.of_rows(self.height)

    def of_rows(self, rows: int, channels: int | None = None) -> int:
        """Return the bytes of some rows, of ``channels`` instead of its own."""
        return (
            self.batch * (channels or self.channels) * rows * self.width * self.arithmetic.itemsize
        )

    def fill(self, rows: int, is_shared: bool) -> Cost:
        """Return the cost of writing ``rows`` rows into given memory; ``is_shared``: all threads on one strip."""
        key = rows, is_shared
        if key not in self._costs:
            self._costs[key] = self.compute(rows, is_shared)
        return self._costs[key]

    def compute(self, rows: int, is_shared: bool) -> Cost:
        """Return the same, uncached."""
        raise NotImplementedError

    def rows(self, rows: int, is_shared: bool) -> tuple[int, Cost]:
        """Return the bytes of ``rows`` rows, and the cost beside them."""
        whole = self.in_units(rows)
        return self.of_rows(whole), self.fill(whole, is_shared)

    def write(self, rows: int, is_shared: bool) -> Cost:
        """Return the cost of writing any rows into given memory."""
        if self.in_units(rows) == rows:
            return self.fill(rows, is_shared)
        taken, made = self.rows(rows, is_shared)
        return _after(made, Cost(), taken)

    def in_units(self, rows: int) -> int:
        """How many rows the units have that so many lie in: unless they are whole units, they begin in
        the midst of one.
        """
        if rows % self.unit:
            rows = self.unit * ((rows - 2) // self.unit + 2)
        return min(self.height, rows)

    def beyond(self, rows: float) -> float:
        """Return the halo of a map that needs ``rows`` more rows of this one, on each side."""
        if isinstance(self, KeptNode):
            return rows
        return self.halo + self.unit * math.ceil(rows / self.unit)

    def by_kernel(
        self, source: Node, given: int, rows: int, is_shared: bool, points: int = POINTS
    ) -> Cost:
        """Return the cost of a 3x3 convolution by a kernel, with norm and SiLU, from ``given`` rows."""
        if isinstance(source, ActivatedNode):
            (source,) = source.sources
        taken, made = source.rows(given, is_shared)
        flops = conv_flops(3, source.channels, self.channels, self.batch * rows * self.width)
        if self.arithmetic.multiplies(source.channels, self.channels):
            workspace = products_workspace(source.channels, self.channels, self.width, points)
        else:
            workspace = native_workspace(source.channels, self.channels, rows, self.width, points)
        return _after(made, Cost(0, workspace, flops), taken)

    def convolve(self, channels_in: int, rows: int, is_shared: bool) -> Cost:
        """Return the cost of a 3x3 convolution of available rows, including its result of ``rows`` rows."""
        arithmetic, output = self.arithmetic, self.of_rows(rows)
        flops = conv_flops(3, channels_in, self.channels, self.batch * rows * self.width)
        if not arithmetic.is_winograd(channels_in, rows + 2, self.width):
            pixels = self.batch * (rows + 2) * self.width
            extra = arithmetic.reordered(3, channels_in, self.channels, pixels)
            return Cost(output + extra, 0, flops)
        parts = arithmetic.threads if is_shared else 1
        part = -(-self.channels // parts)
        kept = arithmetic.workspace(channels_in, part, rows, self.width)
        # If shared, the parts of the result are joined at the end.
        return Cost(2 * output if parts > 1 else output, self.batch * kept, flops)


class KeptNode(Node):
    """A map in memory, of ``storage`` bytes; ``is_known``: its blocks' statistics are known, too."""

    def __init__(
        self,
        arithmetic: Arithmetic,
        shape: tuple[int, int, int, int],
        storage: int | None = None,
        is_known: bool = False,
    ) -> None:
        super().__init__(arithmetic, shape)
        self.storage = self.nbytes if storage is None else storage
        self.is_known = is_known

    def compute(self, rows: int, is_shared: bool) -> Cost:
        return Cost()

    def rows(self, rows: int, is_shared: bool) -> tuple[int, Cost]:
        return 0, Cost()  # a view

    def write(self, rows: int, is_shared: bool) -> Cost:
        return Cost()


class ConvolvedNode(Node):
    """A 3x3 convolution that keeps the size."""

    def __init__(self, source: Node, channels: int) -> None:
        batch, _, height, width = source.shape
        shape = (batch, channels, height, width)
        super().__init__(source.arithmetic, shape, (source,), source.beyond(1), source.row_nbytes)
        self.is_native = self.arithmetic.native
        self.makes_weights = self.arithmetic.makes_weights(source.channels, channels)
        self.unit = TILE_ROWS if self.is_native else 1

    def compute(self, rows: int, is_shared: bool) -> Cost:
        (source,) = self.sources
        if self.is_native:
            return self.by_kernel(source, rows + 2, rows, is_shared)
        window, made = source.of_rows(rows + 2), source.write(rows + 2, is_shared)
        own = self.convolve(source.channels, rows, is_shared)
        return _after(made, own, window)


class ActivatedNode(Node):
    """A group norm, whose statistics are known, and SiLU."""

    def __init__(self, source: Node) -> None:
        super().__init__(source.arithmetic, source.shape, (source,), source.halo, source.row_nbytes)

    def compute(self, rows: int, is_shared: bool) -> Cost:
        return self.write(rows, is_shared)

    def beyond(self, rows: float) -> float:
        return self.sources[0].beyond(rows)

    def write(self, rows: int, is_shared: bool) -> Cost:
        taken, made = self.sources[0].rows(rows, is_shared)
        return _after(made, Cost(self._in_float32(rows)), taken)

    def _in_float32(self, rows: int) -> int:
        """Return the bytes of a norm's float32 input and result, for other formats."""
        itemsize = self.arithmetic.itemsize
        return 0 if itemsize == 4 else 2 * 4 * self.of_rows(rows) // itemsize


class ResidualNode(Node):
    """A residual block, given its first half."""

    def __init__(self, source: Node, hidden: Node) -> None:
        halo = max(hidden.beyond(1), source.halo)
        row_nbytes = max(hidden.row_nbytes, source.row_nbytes)
        super().__init__(hidden.arithmetic, hidden.shape, (source, hidden), halo, row_nbytes)
        self.is_native = self.arithmetic.native
        self.makes_weights = self.arithmetic.makes_weights(self.channels, self.channels)
        self.unit = TILE_ROWS if self.is_native else 1

    def compute(self, rows: int, is_shared: bool) -> Cost:
        held, before = self._at_hand(rows, is_shared)
        if self.is_native:
            at_hand = KeptNode(self.arithmetic, self.shape)
            own = self.by_kernel(at_hand, rows + 2, rows, is_shared)
        else:
            own = self.convolve(self.channels, rows, is_shared)
        extra, flops = self._shortcut(rows)
        return Cost(
            max(before.peak, held + own.peak + extra),
            max(before.workspace, own.workspace),
            before.flops + own.flops + flops,
        )

    def _at_hand(self, rows: int, is_shared: bool) -> tuple[int, Cost]:
        """Return the bytes that the second convolution and the sum read, and the cost of making them."""
        source, hidden = self.sources
        window = 0 if self.is_native else self.of_rows(rows + 2)
        if isinstance(hidden, KeptNode):
            active = Cost() if self.is_native else ActivatedNode(hidden).write(rows + 2, is_shared)
            taken, made = source.rows(rows, is_shared)
            held = window + taken
            peak = max(active.peak + window, held + made.peak)
            return held, Cost(peak, made.workspace, made.flops)
        slab, made = source.rows(hidden.in_units(rows + 2) + 2, is_shared)
        at_hand = KeptNode(source.arithmetic, source.shape)
        first = ConvolvedNode(ActivatedNode(at_hand), self.channels)
        if self.is_native:
            window, half = first.rows(rows + 2, is_shared)
        else:
            half = ActivatedNode(first).write(rows + 2, is_shared)
        return slab + window, _after(made, half, slab + window)

    def _shortcut(self, rows: int) -> tuple[int, int]:
        """Return the bytes and the operations of the 1x1 convolution, if there is one."""
        source = self.sources[0]
        if source.channels == self.channels:
            return 0, 0
        flops = conv_flops(1, source.channels, self.channels, self.batch * rows * self.width)
        if self.is_native:
            return 0, flops
        copied = self.of_rows(rows, source.channels)  # the input's rows, side by side
        return copied, flops


class HalvedNode(Node):
    """The reference's downsampling."""

    def __init__(self, source: Node) -> None:
        batch, channels, height, width = source.shape
        shape = (batch, channels, height // 2, width // 2)
        halo, row_nbytes = source.beyond(2) / 2, 2 * source.row_nbytes
        super().__init__(source.arithmetic, shape, (source,), halo, row_nbytes)
        self.is_native = self.arithmetic.native
        self.makes_weights = not self.is_native

    def compute(self, rows: int, is_shared: bool) -> Cost:
        (source,) = self.sources
        more = 2 * rows + 1
        if self.is_native:
            return self.by_kernel(source, more, rows, is_shared, points=9)
        made = source.write(more, is_shared)
        window = source.of_rows(more) * (source.width + 1) // source.width
        pixels = self.batch * more * source.width
        extra = self.arithmetic.reordered(3, self.channels, self.channels, pixels)
        flops = conv_flops(3, self.channels, self.channels, self.batch * rows * self.width)
        return _after(made, Cost(self.of_rows(rows) + extra, 0, flops), window)


class DoubledNode(Node):
    """The reference's upsampling."""

    def __init__(self, source: Node) -> None:
        batch, channels, height, width = source.shape
        shape = (batch, channels, 2 * height, 2 * width)
        halo, row_nbytes = 2 * source.beyond(1), source.row_nbytes // 2
        super().__init__(source.arithmetic, shape, (source,), halo, row_nbytes)
        self.is_native = self.arithmetic.native
        self.makes_weights = self.arithmetic.makes_weights(channels, channels)
        self.unit = TILE_ROWS if self.is_native else 1

    def compute(self, rows: int, is_shared: bool) -> Cost:
        (source,) = self.sources
        fewer = rows // 2 + 2
        if self.is_native:
            return self.by_kernel(source, fewer, rows, is_shared)
        window, made = source.of_rows(fewer), source.write(fewer, is_shared)
        # The doubled rows, and a copy of those needed.
        doubled = self.of_rows(2 * fewer) + self.of_rows(rows + 2)
        own = self.convolve(source.channels, rows, is_shared)
        own = Cost(doubled + own.peak, own.workspace, own.flops)
        return _after(made, own, window)


def _after(made: Cost, own: Cost, held: int) -> Cost:
    """Return the cost of ``made`` followed by ``own``, with ``held`` bytes in memory during both."""
    return Cost(
        held + max(made.peak, own.peak),
        max(made.workspace, own.workspace),
        made.flops + own.flops,
    )
