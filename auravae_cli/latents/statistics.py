"""The distribution of the values of latents, channel by channel, in one pass over any number of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 64

Floats = NDArray[np.float64]


@dataclass
class ChannelStatistics:
    """Statistics of C channels over the blocks added so far; all arrays have C rows.

    ``counts`` is a histogram of `BINS` bins of equal width over [-clamp, clamp]; values beyond are in
    the outer bins. Values that are not finite are counted separately and excluded from everything else.
    """

    clamp: float
    counts: NDArray[np.int64]
    sums: Floats
    squares: Floats
    minimum: Floats
    maximum: Floats
    clamped: int = 0
    not_finite: int = 0

    @classmethod
    def empty(cls, channels: int, clamp: float) -> ChannelStatistics:
        """Return the statistics before the first block."""
        zeros, infinite = np.zeros(channels), np.full(channels, np.inf)
        counts = np.zeros((channels, BINS), np.int64)
        return cls(clamp, counts, zeros, zeros.copy(), infinite, -infinite)

    @np.errstate(over="ignore", invalid="ignore")  # places of values far beyond the bins
    def add(self, values: NDArray[np.float32]) -> None:
        """Add a block of latents [N, C, h, w]."""
        for channel in range(values.shape[1]):
            self._add(channel, values[:, channel].ravel())

    def _add(self, channel: int, values: NDArray[np.float32]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            self.not_finite += int(values.size - finite.sum())
            values = values[finite]
        if not values.size:
            return
        low, high = values.min(), values.max()
        if max(-low, high) >= self.clamp:
            self.clamped += int((np.abs(values) >= self.clamp).sum())
        self.minimum[channel] = min(self.minimum[channel], low)
        self.maximum[channel] = max(self.maximum[channel], high)
        self.sums[channel] += values.sum(dtype=np.float64)
        self.squares[channel] += np.square(values, dtype=np.float64).sum()
        places = (values + np.float32(self.clamp)) * np.float32(BINS / (2 * self.clamp))
        inside = np.fmin(np.fmax(places, 0), BINS - 1)  # no NaN, whatever clamp a header claims
        bins = inside.astype(np.intp)  # positive, so this rounds down
        self.counts[channel] += np.bincount(bins, minlength=BINS)

    @property
    def edges(self) -> Floats:
        """The `BINS` + 1 edges of the bins."""
        return np.linspace(-self.clamp, self.clamp, BINS + 1)

    @property
    def number(self) -> NDArray[np.int64]:
        """The number of finite values of each channel."""
        number: NDArray[np.int64] = self.counts.sum(axis=1)
        return number

    @property
    def mean(self) -> Floats:
        """The mean of each channel; NaN without values."""
        with np.errstate(invalid="ignore"):
            mean: Floats = self.sums / self.number
        return mean

    @property
    def deviation(self) -> Floats:
        """The standard deviation of each channel; NaN without values."""
        with np.errstate(invalid="ignore"):
            deviation: Floats = np.sqrt(np.maximum(self.squares / self.number - self.mean**2, 0))
        return deviation
