"""Group norms over maps that are never in memory as a whole: statistics of blocks, then an affine map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.model.planning.strip_plan import BLOCK_ROWS
from auravae_cli.model.spec.config import NORM_EPSILON

Float = NDArray[np.float32]
Measure = Callable[[Any, Float, Float], None]


@dataclass(frozen=True)
class Statistics:
    """The mean and the variance of every group of channels over the whole map, [B, G] float64."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


class BlockStatistics:
    """The statistics of a map's blocks of rows, which strips fill in, in any order.

    ``measure`` writes those of the blocks of rows [B, C, n, W], [B, C, blocks]: the mean, and the root of the
    sum of squares about it.
    """

    def __init__(self, shape: tuple[int, ...], groups: int, measure: Measure) -> None:
        batch, channels, height, width = shape
        self._groups, self._measure = groups, measure
        starts = np.arange(0, height, BLOCK_ROWS)
        self._counts = np.minimum(height - starts, BLOCK_ROWS) * float(width)
        self._means = np.empty((batch, channels, len(starts)), np.float32)
        self._spreads = np.empty_like(self._means)

    def add(self, x: Any, start: int) -> None:
        """Add rows [B, C, n, W] from ``start`` on: whole blocks, except the last of the map."""
        first, number = start // BLOCK_ROWS, -(-x.shape[2] // BLOCK_ROWS)
        places = slice(first, first + number)
        self._measure(x, self._means[:, :, places], self._spreads[:, :, places])

    def merged(self) -> Statistics:
        """Return the statistics of the groups over the whole map (Chan, Golub and LeVeque, 1983)."""
        batch, channels, blocks = self._means.shape
        by_group = (batch, self._groups, channels // self._groups, blocks)
        means, spreads = (
            x.astype(np.float64).reshape(by_group) for x in (self._means, self._spreads)
        )
        shares = self._counts / (self._counts.sum() * by_group[2])
        mean = (means * shares).sum((2, 3))
        between = (np.square(means - mean[:, :, None, None]) * shares).sum((2, 3))
        within = (np.square(spreads) / self._counts * shares).sum((2, 3))
        return Statistics(mean, within + between)


@dataclass(frozen=True)
class Affine:
    """A group norm with known statistics: factors and addends of each channel, [B, C] float32."""

    scale: Float
    shift: Float

    @classmethod
    def of(cls, weight: Float, bias: Float, known: Statistics) -> Affine:
        """Return that of a norm with these parameters, [C]."""
        each = len(weight) // known.mean.shape[1]
        inverse = (1 / np.sqrt(known.variance + NORM_EPSILON)).repeat(each, 1)
        scale = weight.astype(np.float64) * inverse
        shift = bias - known.mean.repeat(each, 1) * scale
        return cls(scale.astype(np.float32), shift.astype(np.float32))

    def __call__(self, x: Float) -> Float:
        """Normalise rows [B, C, n, W]."""
        normed = x * self.scale[:, :, None, None]
        normed += self.shift[:, :, None, None]
        return normed
