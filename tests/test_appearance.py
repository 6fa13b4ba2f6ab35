"""The measures of benchmarks/appearance.py, against published numbers and made-up errors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
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


@pytest.fixture(scope="module")
def appearance():
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("appearance")
    for name in ("appearance", "colour_difference"):
        del sys.modules[name]


@pytest.fixture(scope="module")
def colour_difference(appearance):
    return sys.modules["colour_difference"]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_ciede2000_of_the_published_pairs(colour_difference, first, second, expected):
    first, second = (np.array([colour], float) for colour in (first, second))
    for a, b in ((first, second), (second, first)):
        assert colour_difference.difference(a, b)[0] == pytest.approx(expected, abs=1e-4)


def test_colours_in_cielab(colour_difference):
    picture = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]], np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    assert np.allclose(colour_difference.lab(picture)[0], expected, atol=0.02)


def test_colours_of_a_tinted_picture(appearance):
    picture = np.random.default_rng(0).integers(60, 190, (32, 40, 3)).astype(np.uint8)
    tinted = picture + np.array([0, 0, 5], np.uint8)
    found = appearance.colours([tinted, picture], [picture, picture])
    assert [found[f"mean error {c}"] for c in "RGB"] == pytest.approx([0, 0, 2.5])
    assert found["mean error, worst"] == 5
    luma = 0.114 * 5
    mse = ((5 - luma) / 1.772) ** 2 / 2
    assert found["PSNR Cb"] == pytest.approx(10 * np.log10(255**2 / mse))
    assert found["CIEDE2000"] > 0.5


def test_the_grid_is_what_repeats_every_8_pixels(appearance):
    random = np.random.default_rng(0)
    cell = random.standard_normal((8, 8))
    cell = 2 * (cell - cell.mean()) / cell.std()
    noise = 5 * random.standard_normal((64, 64))
    assert appearance.grid(np.tile(cell, (8, 8)) + 7) == pytest.approx(2)
    assert appearance.grid(np.tile(cell, (8, 8)) + noise) == pytest.approx(2, abs=0.2)
    assert appearance.grid(noise) < 0.3
    assert appearance.grid(np.tile(cell[:7, :7], (10, 10))[:64, :64]) < 1


def test_all_measures_of_a_model(appearance):
    from auravae_cli.model.codec import load_codec

    pictures = [
        np.random.default_rng(seed).integers(0, 256, (180, 197, 3)).astype(np.uint8)
        for seed in range(2)
    ]
    found = appearance.measure(load_codec("linear"), pictures)
    assert found["crops, dB lost"] == pytest.approx(0, abs=1e-6)  # it knows no neighbours
    assert found["rows, grey"] == pytest.approx(1, abs=1e-3)
    noise = [found[f"PSNR at noise {level:g}"] for level in appearance.NOISE]
    assert noise == sorted(noise, reverse=True)
