"""Number formats: conversions by bits are those of numpy, for every value there is."""

from __future__ import annotations

import numpy as np
import pytest

from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def test_every_float16_widens_as_numpy_widens_it():
    wide = FLOAT16.to_float32(ALL_HALVES.reshape(16, 64, 64))
    assert wide.tobytes() == ALL_HALVES.astype(np.float32).tobytes()
    assert wide.shape == (16, 64, 64)


def test_every_finite_float16_narrows_exactly():
    finite = ALL_HALVES[np.isfinite(ALL_HALVES)].reshape(2, -1)
    narrow = FLOAT16.exactly(finite.astype(np.float32))
    assert narrow is not None and narrow.tobytes() == finite.tobytes()
    assert narrow.dtype == np.float16


def test_every_bfloat16_narrows_exactly():
    words = np.arange(1 << 16, dtype=np.uint16)
    narrow = BFLOAT16.exactly((words.astype(np.uint32) << 16).view(np.float32))
    assert narrow is not None and np.array_equal(narrow, words)


@pytest.mark.parametrize("value", [0.1, 65520.0, 1e38, np.inf, 2e-8, -3e-5, 1e-45, 2049.0])
def test_what_float16_cannot_hold_is_not_narrowed(value):
    values = np.array([1.0, value], np.float32)
    is_exact = np.float32(value) == np.float32(np.float16(np.float32(min(value, 65504.0))))
    assert not is_exact
    assert FLOAT16.exactly(values) is None


def test_what_bfloat16_cannot_hold_is_not_narrowed():
    assert BFLOAT16.exactly(np.array([1.0, 0.1], np.float32)) is None
    assert FLOAT32.exactly(np.array([0.1], np.float32)) is not None


@pytest.mark.parametrize("stored", [FLOAT16, BFLOAT16, FLOAT32], ids=lambda dtype: dtype.name)
def test_narrowing_agrees_with_rounding(stored):
    random = np.random.default_rng(0)
    for scale in (1e-6, 1e-4, 1, 1e3):
        values = stored.to_float32(
            stored.from_float32((random.normal(size=500) * scale).astype("f4"))
        )
        narrow = stored.exactly(values)
        assert narrow is not None and np.array_equal(narrow, stored.from_float32(values))


def test_nothing_is_narrowed_to_nothing():
    assert FLOAT16.exactly(np.zeros((0, 3), np.float32)).shape == (0, 3)
