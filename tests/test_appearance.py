"""The measures of benchmarks/appearance.py, against published numbers and made-up errors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def appearance():
    """The program as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("appearance")
    del sys.modules["appearance"]


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
