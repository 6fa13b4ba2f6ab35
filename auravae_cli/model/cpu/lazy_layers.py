"""The network's layers over `LazyMap`: what each needs of its source for some of its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.cpu.block_norms import Affine
from auravae_cli.model.cpu.lazy_maps import Activated, LazyMap, MapSlice, StoredMap
from auravae_cli.model.cpu.native_convolutions import Convolution, convolution
from auravae_cli.model.cpu.nnpack import convolve_inner
from auravae_cli.model.network.layers import ResnetBlock
from auravae_cli.model.planning.layer_costs import TILE_ROWS


class Convolved(LazyMap):
    """A 3x3 convolution that keeps the size, with a border of zeros."""

    def __init__(self, source: LazyMap, conv: nn.Conv2d) -> None:
        super().__init__(*source.like(channels=conv.out_channels))
        self._source, self._conv = source, conv
        self._native = convolution(conv, self)
        self.unit = unit_of(self._native)

    def fill(self, out: Tensor, start: int) -> None:
        if self._native:
            self._native.same(out, self._source, start)
            return
        window = self._source.window(start - 1, start + out.shape[2] + 1)
        out.copy_(convolve_inner(self._conv, window))


class Residual(LazyMap):
    """A residual block, given ``hidden``, its first half."""

    def __init__(
        self, source: LazyMap, hidden: LazyMap, block: ResnetBlock, norms: tuple[Affine, Affine]
    ) -> None:
        super().__init__(*hidden.like(channels=block.conv2.out_channels))
        self._source, self._hidden, self._block = source, hidden, block
        self._norms = norms
        self._shortcut: nn.Conv2d | None = getattr(block, "nin_shortcut", None)
        self._bias: Tensor | None = None  # of the convolution, or of both
        if self._shortcut is not None:
            assert block.conv2.bias is not None and self._shortcut.bias is not None
            self._bias = block.conv2.bias + self._shortcut.bias
        self._native_shortcut = self._shortcut and convolution(self._shortcut, self)
        is_whole = self._shortcut is None or self._native_shortcut is not None
        self._native = convolution(block.conv2, self) if is_whole else None
        self.unit = unit_of(self._native)

    def fill(self, out: Tensor, start: int) -> None:
        stop = start + out.shape[2]
        source, hidden = self._source, self._hidden
        if not isinstance(hidden, StoredMap):
            # The input is requested once, for both the sum and the convolutions: doing so twice would
            # double the work with every block that is not kept.
            first, last = hidden.in_units(max(0, start - 1), min(self.shape[2], stop + 1))
            source = MapSlice(source, max(0, first - 1), min(self.shape[2], last + 1))
            hidden = first_half(self._block, source, self._norms[0])
        activated = Activated(hidden, self._norms[1])
        if self._native and self._native_shortcut:
            self._native_shortcut.mixed(out, source, start)
            self._native.same(out, activated, start, residual=out)
            return
        if self._native:
            self._native.same(out, activated, start, residual=source.rows(start, stop))
            return
        window = activated.window(start - 1, stop + 1)
        x = source.rows(start, stop)
        if self._shortcut is None:
            torch.add(convolve_inner(self._block.conv2, window), x, out=out)
            return
        changed = convolve_inner(self._block.conv2, window, self._bias).flatten(2)
        weight = self._shortcut.weight.flatten(1).expand(len(changed), -1, -1)
        out.copy_(changed.baddbmm_(weight, x.flatten(2)).view_as(out))


def first_half(block: ResnetBlock, source: LazyMap, norm: Affine) -> LazyMap:
    """Return the input of a residual block's second norm."""
    return Convolved(Activated(source, norm), block.conv1)


def unit_of(convolution: Convolution | None) -> int:
    """Return how many rows a convolution computes together: for our own kernels, those of a tile."""
    return 1 if convolution is None else TILE_ROWS


class Halved(LazyMap):
    """The reference's downsampling: a border of zeros on the right and the bottom, then stride 2."""

    def __init__(self, source: LazyMap, conv: nn.Conv2d) -> None:
        height, width = source.shape[2] // 2, source.shape[3] // 2
        super().__init__(*source.like(height=height, width=width))
        self._source, self._conv = source, conv
        self._native = convolution(conv, self)

    def fill(self, out: Tensor, start: int) -> None:
        if self._native:
            self._native.halved(out, self._source, start)
            return
        out.copy_(
            self._conv(self._source.window(2 * start, 2 * (start + out.shape[2]) + 1, right=1))
        )


class Doubled(LazyMap):
    """The reference's upsampling: every pixel four times, then a 3x3 convolution.

    The exact shortcut, four 2x2 convolutions of the smaller map, is slower than Winograd's method on
    the larger one; our own kernel omits those of its products that are zero there.
    """

    def __init__(self, source: LazyMap, conv: nn.Conv2d) -> None:
        height, width = 2 * source.shape[2], 2 * source.shape[3]
        super().__init__(*source.like(conv.out_channels, height, width))
        self._source, self._conv = source, conv
        self._native = convolution(conv, self)
        self.unit = unit_of(self._native)

    def fill(self, out: Tensor, start: int) -> None:
        if self._native:
            self._native.doubled(out, self._source, start)
            return
        first, stop = (start - 1) // 2, start + out.shape[2]
        window = self._source.window(first, stop // 2 + 1)
        doubled = F.interpolate(window, scale_factor=2.0, mode="nearest")
        inner = doubled.narrow(2, start - 1 - 2 * first, out.shape[2] + 2)
        out.copy_(convolve_inner(self._conv, inner))
