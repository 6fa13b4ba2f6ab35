"""Features that are computed row by row as they are asked for, so that memory does not grow with them.

A convolution needs a row more on each side, a norm the statistics of the whole picture, attention
the whole picture: everything else follows from rows alone. So the network runs exactly, not in tiles
that are blended: a norm reads its input once for the statistics, merged from fixed blocks in
float64, and what is not kept in memory is computed again when it is asked for again.

What each class takes while it runs stands in `stripplan`, under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auravae_cli.model.layers import ResnetBlock, silu
from auravae_cli.model.stripplan import STATISTICS_ROWS

Shape = tuple[int, int, int, int]


class Rows:
    """A feature map [B, C, H, W]."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of it, [B, C, stop - start, W], not to be overwritten."""
        raise NotImplementedError


class Kept(Rows):
    """A feature map in memory."""

    def __init__(self, values: Tensor) -> None:
        batch, channels, height, width = values.shape
        super().__init__((batch, channels, height, width))
        self.values = values

    def rows(self, start: int, stop: int) -> Tensor:
        return self.values[:, :, start:stop]


class Convolved(Rows):
    """A 3x3 convolution that keeps the size."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        batch, _, height, width = source.shape
        super().__init__((batch, conv.out_channels, height, width))
        self._source, self._conv = source, conv

    def rows(self, start: int, stop: int) -> Tensor:
        first, last = max(0, start - 1), min(self.shape[2], stop + 1)
        # Rows at a cut are computed with a border of zeros that is not theirs, and dropped.
        return self._conv(self._source.rows(first, last))[:, :, start - first : stop - first]


class Affine:
    """A group norm whose statistics are known: what it does to any rows.

    They are those of all ``source``, which is read ``at_once`` rows at once.
    """

    def __init__(self, source: Rows, norm: nn.GroupNorm, at_once: int) -> None:
        self._scale, self._shift = affine(source, norm, at_once)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` normalised, and rounded to its own precision, as torch's norm does."""
        return torch.addcmul(self._shift, x.float(), self._scale).to(x.dtype)


class Activated(Rows):
    """A group norm and SiLU."""

    def __init__(self, source: Rows, norm: nn.GroupNorm, at_once: int) -> None:
        super().__init__(source.shape)
        self._source, self._affine = source, Affine(source, norm, at_once)

    def rows(self, start: int, stop: int) -> Tensor:
        return silu(self._affine(self._source.rows(start, stop)))


class Residual(Rows):
    """A residual block. Its input is computed once, with two rows more on each side."""

    def __init__(self, source: Rows, hidden: Rows, block: ResnetBlock, at_once: int) -> None:
        batch, _, height, width = source.shape
        super().__init__((batch, block.conv2.out_channels, height, width))
        self._source, self._hidden, self._block = source, hidden, block
        self._affine = Affine(hidden, block.norm2, at_once)

    def rows(self, start: int, stop: int) -> Tensor:
        first, last = max(0, start - 1), min(self.shape[2], stop + 1)
        if isinstance(self._hidden, Hidden):
            x, hidden = self._hidden.with_source(first, last)
            x = x[:, :, start - first : stop - first]
        else:
            x, hidden = self._source.rows(start, stop), self._hidden.rows(first, last)
        changed = self._block.conv2(silu(self._affine(hidden)))[:, :, start - first : stop - first]
        shortcut = getattr(self._block, "nin_shortcut", None)
        return changed.add_(x if shortcut is None else shortcut(x))


class Hidden(Rows):
    """The first half of a residual block."""

    def __init__(self, source: Rows, block: ResnetBlock, at_once: int) -> None:
        batch, _, height, width = source.shape
        super().__init__((batch, block.conv1.out_channels, height, width))
        self._source, self._block = source, block
        self._affine = Affine(source, block.norm1, at_once)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.with_source(start, stop)[1]

    def with_source(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The same rows of the block's input, and of this."""
        first, last = max(0, start - 1), min(self.shape[2], stop + 1)
        x = self._source.rows(first, last)
        inner = slice(start - first, stop - first)
        hidden = self._block.conv1(silu(self._affine(x)))[:, :, inner]
        return x[:, :, inner], hidden


class Halved(Rows):
    """The reference's step down: a border of zeros on the right and the bottom, then stride 2."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        batch, channels, height, width = source.shape
        super().__init__((batch, channels, height // 2, width // 2))
        self._source, self._conv = source, conv

    def rows(self, start: int, stop: int) -> Tensor:
        last = min(self._source.shape[2], 2 * stop + 1)
        x = self._source.rows(2 * start, last)
        return self._conv(F.pad(x, (0, 1, 0, 2 * stop + 1 - last)))


class Doubled(Rows):
    """The reference's step up: every pixel four times, then a 3x3 convolution."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        batch, _, height, width = source.shape
        super().__init__((batch, conv.out_channels, 2 * height, 2 * width))
        self._source, self._conv = source, conv

    def rows(self, start: int, stop: int) -> Tensor:
        first, last = max(0, (start - 1) // 2), min(self._source.shape[2], (stop + 2) // 2)
        x = F.interpolate(self._source.rows(first, last), scale_factor=2.0, mode="nearest")
        return self._conv(x)[:, :, start - 2 * first : stop - 2 * first]


def keep(source: Rows, at_once: int) -> Kept:
    """The whole feature map, computed ``at_once`` rows at once."""
    values: Tensor | None = None
    for start, stop in strips(source.shape[2], at_once):
        part = source.rows(start, stop)
        if values is None:
            values = torch.empty(source.shape, dtype=part.dtype, device=part.device)
        values[:, :, start:stop] = part
        del part  # before the next one is made
    assert values is not None
    return Kept(values)


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """The first and last row of every strip."""
    for start in range(0, height, strip):
        yield start, min(height, start + strip)


def affine(source: Rows, norm: nn.GroupNorm, at_once: int) -> tuple[Tensor, Tensor]:
    """What a norm over the whole map multiplies and adds, [B, C, 1, 1] float32 each.

    ``at_once`` is a multiple of `STATISTICS_ROWS`.
    The statistics of fixed blocks are merged in float64 (Chan, Golub and LeVeque, 1983).
    """
    batch, channels, height, _ = source.shape
    groups = norm.num_groups
    count = 0.0
    mean = squares = torch.zeros(batch, groups, dtype=torch.float64)
    for start, stop in strips(height, at_once):
        part = source.rows(start, stop)
        for first, last in strips(stop - start, STATISTICS_ROWS):
            block = part[:, :, first:last].reshape(batch, groups, -1).float()
            spread, middle = torch.var_mean(block, dim=2, correction=0)
            added = float(block.shape[2])
            middle, total = middle.double().cpu(), count + added
            delta = middle - mean
            squares = squares + spread.double().cpu() * added + delta**2 * (count * added / total)
            mean, count = mean + delta * (added / total), total
        del part, block  # before the next ones are made
    inverse = (squares / count + norm.eps).rsqrt()
    each = channels // groups
    scale = norm.weight.double().cpu() * inverse.repeat_interleave(each, 1)
    shift = norm.bias.double().cpu() - mean.repeat_interleave(each, 1) * scale
    device = norm.weight.device
    return tuple(x[:, :, None, None].to(device, torch.float32) for x in (scale, shift))  # type: ignore[return-value]
