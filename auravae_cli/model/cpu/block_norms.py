"""Group norms over maps that are never in memory as a whole: statistics of blocks, then an affine map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from auravae_cli.model.cpu import native
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS


@dataclass(frozen=True)
class Statistics:
    """The mean and the variance of every group of channels over the whole map, [B, G] float64."""

    mean: Tensor
    variance: Tensor


class BlockStatistics:
    """The statistics of a map's blocks of rows, which strips fill in, in any order."""

    def __init__(self, shape: tuple[int, int, int, int], groups: int) -> None:
        batch, channels, height, width = shape
        self._groups = groups
        starts = torch.arange(0, height, BLOCK_ROWS)
        self._counts = (height - starts).clamp(max=BLOCK_ROWS).double() * width
        # For every block and channel: the mean, and the root of the sum of squares about it.
        self._means = torch.empty(batch, channels, len(starts))
        self._spreads = torch.empty_like(self._means)

    def add(self, x: Tensor, start: int) -> None:
        """Add rows [B, C, n, W] from ``start`` on: whole blocks, except the last of the map."""
        first = start // BLOCK_ROWS
        is_float = (x.dtype, x.device.type) == (torch.float32, "cpu")
        kernels = native.kernels() if is_float and lies_in_rows(x) else None
        if kernels is not None:
            width, places = x.shape[3], (self._means[:, :, first:], self._spreads[:, :, first:])
            for each, *found in zip(x, *places, strict=True):
                sizes = len(each), x.shape[2] * width, BLOCK_ROWS * width
                ends = (place.data_ptr() for place in found)
                kernels.measure(each.data_ptr(), each.stride(0), *sizes, *ends, found[0].stride(0))
            return
        whole = x.shape[2] // BLOCK_ROWS * BLOCK_ROWS
        if whole:
            self._take(x[:, :, :whole].unflatten(2, (-1, BLOCK_ROWS)), first)
        if whole < x.shape[2]:
            self._take(x[:, :, None, whole:], first + whole // BLOCK_ROWS)

    def _take(self, blocks: Tensor, first: int) -> None:
        """Add [B, C, blocks, rows, W]. Two passes in float32 over cached values lose no digits."""
        values = blocks.flatten(3).float()
        means = values.mean(3, keepdim=True)
        places = slice(first, first + blocks.shape[2])
        self._spreads[:, :, places] = torch.linalg.vector_norm(values - means, dim=3).cpu()
        self._means[:, :, places] = means.squeeze(3).cpu()

    def merged(self) -> Statistics:
        """Return the statistics of the groups over the whole map (Chan, Golub and LeVeque, 1983)."""
        means, spreads = (
            x.double().unflatten(1, (self._groups, -1)) for x in (self._means, self._spreads)
        )
        shares = self._counts / (self._counts.sum() * means.shape[2])
        mean = (means * shares).sum((2, 3))
        between = ((means - mean[:, :, None, None]).square() * shares).sum((2, 3))
        within = (spreads.square() / self._counts * shares).sum((2, 3))
        return Statistics(mean, within + between)


def lies_in_rows(x: Tensor) -> bool:
    """Return whether the rows of every channel are contiguous, as our own kernels need them."""
    return x.stride(3) == 1 and x.stride(2) == x.shape[3]


class Affine:
    """A group norm with known statistics: its factors and addends, for any rows."""

    def __init__(self, norm: nn.GroupNorm, statistics: Statistics) -> None:
        each = norm.num_channels // norm.num_groups
        inverse = (statistics.variance + norm.eps).rsqrt().repeat_interleave(each, 1)
        mean = statistics.mean.repeat_interleave(each, 1)
        scale = norm.weight.double().cpu() * inverse
        shift = norm.bias.double().cpu() - mean * scale
        device = norm.weight.device
        self.scale, self.shift = (
            x[:, :, None, None].to(device, torch.float32) for x in (scale, shift)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise ``x``, and round to its own precision, like torch's norm."""
        return self.into(torch.empty_like(x), x)

    def into(self, out: Tensor, x: Tensor) -> Tensor:
        """Normalise ``x`` and write the result to ``out``."""
        if x.dtype == torch.float32:
            return torch.mul(x, self.scale, out=out).add_(self.shift)
        return out.copy_(torch.addcmul(self.shift, x.float(), self.scale))
