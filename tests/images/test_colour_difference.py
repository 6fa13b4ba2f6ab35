"""CIEDE2000 against published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from auravae_cli.images.colour_difference import ciede2000, difference, lab

# From the test data of Sharma, Wu and Dalal (2005): two colours in CIELAB and their difference.
PAIRS = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_ciede2000_of_the_published_pairs(first, second, expected):
    first, second = (np.array([colour], float) for colour in (first, second))
    for a, b in ((first, second), (second, first)):
        assert difference(a, b)[0] == pytest.approx(expected, abs=1e-4)


def test_colours_in_cielab():
    picture = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]], np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    assert np.allclose(lab(picture)[0], expected, atol=0.02)


def test_the_difference_of_pictures_is_a_mean():
    picture = np.random.default_rng(0).integers(0, 251, (9, 7, 3)).astype(np.uint8)
    assert ciede2000(picture, picture) == 0
    half = picture.copy()
    half[:, :3] += 4
    expected = difference(lab(picture), lab(half)).sum() / 63
    assert ciede2000(half, picture) == pytest.approx(expected) and expected > 0.3
