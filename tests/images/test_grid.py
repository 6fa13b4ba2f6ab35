"""The grid of cells in an error, against made-up errors."""

from __future__ import annotations

import numpy as np
import pytest

from auravae_cli.images.grid import block_side, flat_grid, grid


def test_the_grid_is_what_repeats_every_8_pixels():
    random = np.random.default_rng(0)
    cell = random.standard_normal((8, 8))
    cell = 2 * (cell - cell.mean()) / cell.std()
    noise = 5 * random.standard_normal((64, 64))
    assert grid(np.tile(cell, (8, 8)) + 7, 8) == pytest.approx(2)
    assert grid(np.tile(cell, (8, 8)) + noise, 8) == pytest.approx(2, abs=0.2)
    assert grid(noise, 8) < 0.3
    assert grid(np.tile(cell[:7, :7], (10, 10))[:64, :64], 8) < 1


def test_the_grid_of_a_picture_is_that_of_its_flat_parts():
    random = np.random.default_rng(1)
    reference = random.integers(40, 200, (192, 256, 3)).astype(np.uint8)
    reference[64:128, 64:128] = 100
    cell = np.where(np.indices((8, 8)).sum(0) % 2, 3, -3)
    image = reference.copy()
    image[64:128, 64:128] += np.tile(cell, (8, 8))[..., None].astype(np.int8).view(np.uint8)
    assert flat_grid(image, reference, 8) == pytest.approx(3, abs=0.01)
    noisy = np.clip(reference + random.normal(0, 3, reference.shape), 0, 255).astype(np.uint8)
    assert flat_grid(noisy, reference, 8) < 0.5
    assert flat_grid(image[:60], reference[:60], 8) is None
    assert flat_grid(image, reference, 1) is None
    assert [block_side(period) for period in (2, 8, 16, 32, 64)] == [64, 64, 64, 128, 256]
