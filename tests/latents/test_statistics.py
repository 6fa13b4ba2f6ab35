"""Statistics of blocks are those of all values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from auravae_cli.latents.statistics import BINS, ChannelStatistics

EIGHTHS = st.integers(-64, 64).map(lambda n: n / 8)  # on edges of bins, and between them
BLOCKS = st.lists(arrays(np.float32, (2, 3, 1, 2), elements=EIGHTHS), min_size=1, max_size=4)


@given(BLOCKS)
def test_they_are_numpys(blocks):
    statistics = ChannelStatistics.empty(3, 8.0)
    for block in blocks:
        statistics.add(block)
    values = np.concatenate(blocks).swapaxes(0, 1).reshape(3, -1).astype(np.float64)
    assert statistics.mean == pytest.approx(values.mean(1), abs=1e-9)
    assert statistics.deviation == pytest.approx(values.std(1), abs=1e-6)
    assert statistics.minimum.tolist() == values.min(1).tolist()
    assert statistics.maximum.tolist() == values.max(1).tolist()
    expected = [np.histogram(v, BINS, (-8, 8))[0].tolist() for v in values]
    assert statistics.clamped == (np.abs(values) == 8).sum()
    assert statistics.counts.tolist() == expected


def test_values_that_are_not_finite_or_beyond_the_clamp():
    statistics = ChannelStatistics.empty(1, 1.0)
    statistics.add(np.array([np.nan, np.inf, -np.inf, 2, -3, 0.5], np.float32).reshape(1, 1, 1, 6))
    assert (statistics.not_finite, statistics.clamped) == (3, 2)
    assert statistics.number.tolist() == [3]
    assert (statistics.counts[0, 0], statistics.counts[0, -1]) == (1, 1)
    assert statistics.maximum.tolist() == [2]
    statistics.add(np.full((1, 1, 1, 1), np.nan, np.float32))
    assert statistics.not_finite == 4


def test_without_values_nothing_is_known():
    statistics = ChannelStatistics.empty(2, 1.0)
    statistics.add(np.empty((0, 2, 1, 1), np.float32))
    assert np.isnan(statistics.mean).all() and np.isnan(statistics.deviation).all()
