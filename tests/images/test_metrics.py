"""PSNR, SSIM and MS-SSIM: known values, symmetry, and the definition written out in loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.images.metrics import ms_ssim, psnr, similarity, ssim
from auravae_cli.images.read import read_image

SAMPLES = Path(__file__).parents[2] / "samples"

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (14, 13, 3), np.uint8)
OTHER = np.clip(IMAGE + RANDOM.normal(0, 20, IMAGE.shape), 0, 255).astype(np.uint8)


def test_psnr_of_known_differences() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, np.full_like(black, 255)) == 0
    assert psnr(np.full_like(black, 1), black) == pytest.approx(20 * math.log10(255))
    one = black.copy()
    one[0, 0, 0] = 255
    assert psnr(one, black) == pytest.approx(10 * math.log10(60))


def test_psnr_does_not_wrap_around_and_is_symmetric() -> None:
    low, high = np.full((2, 2, 3), 3, np.uint8), np.full((2, 2, 3), 5, np.uint8)
    assert psnr(low, high) == psnr(high, low) == pytest.approx(10 * math.log10(255**2 / 4))
    assert psnr(IMAGE, OTHER) == psnr(OTHER, IMAGE)


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, one window at a time."""
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                a = x[top : top + 11, left : left + 11, channel].astype(float)
                b = y[top : top + 11, left : left + 11, channel].astype(float)
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (
                    (window * (a - mean_a) ** 2).sum(),
                    (window * (b - mean_b) ** 2).sum(),
                )
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + c1)
                    * (2 * covariance + c2)
                    / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
                )
    return float(np.mean(values))


def test_ssim_is_its_definition() -> None:
    found = ssim(IMAGE, OTHER)
    assert found == pytest.approx(naive_ssim(IMAGE, OTHER), abs=1e-9)
    assert found is not None
    assert 0.1 < found < 0.99
    assert ssim(OTHER, IMAGE) == pytest.approx(found, abs=1e-12)


def test_ssim_of_equal_pictures_is_one() -> None:
    assert ssim(IMAGE, IMAGE) == pytest.approx(1, abs=1e-12)


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    low, high = np.full((12, 12, 3), 100, np.uint8), np.full((12, 12, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(low, high) == pytest.approx(expected, abs=1e-9)


def test_pictures_smaller_than_a_window_have_no_ssim() -> None:
    assert ssim(IMAGE[:10], OTHER[:10]) is None
    assert ssim(IMAGE[:, :10], OTHER[:, :10]) is None
    assert ssim(IMAGE[:11, :11], OTHER[:11, :11]) is not None


# Against independent implementations, on pictures with structure

ROCKET = read_image((SAMPLES / "rocket.webp").read_bytes()).pixels
SIZES = pytest.mark.parametrize("size", [(176, 192), (175, 193), (161, 161), (240, 325)], ids=str)


def pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and itself blurred and noised."""
    image = ROCKET[20 : 20 + size[0], 60 : 60 + size[1]]
    shifted = (image.astype(float) + np.roll(image, 1, axis=1)) / 2
    noise = np.random.default_rng(3).normal(0, 9, image.shape)
    return np.clip(shifted + noise, 0, 255).astype(np.uint8), image


@SIZES
def test_psnr_and_ssim_agree_with_scikit_image(size: tuple[int, int]) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    image, reference = pair(size)
    expected = skimage.peak_signal_noise_ratio(reference, image, data_range=255)
    assert psnr(image, reference) == pytest.approx(expected, abs=1e-9)
    expected = skimage.structural_similarity(
        image,
        reference,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_knows_coarse_from_fine() -> None:
    """A shift in brightness costs the coarsest scale alone; so MS-SSIM is not SSIM by another name."""
    image = ROCKET[:176, :176]
    darker = np.clip(image.astype(int) - 20, 0, 255).astype(np.uint8)
    assert similarity(darker, image)[1] > similarity(darker, image)[0] + 0.01
    assert similarity(image, image) == pytest.approx((1, 1), abs=1e-12)


def test_both_at_once_are_the_same_as_each() -> None:
    image, reference = pair((176, 192))
    assert similarity(image, reference) == (ssim(image, reference), ms_ssim(image, reference))
    assert similarity(image[:160], reference[:160]) == (ssim(image[:160], reference[:160]), None)
    assert ms_ssim(image[:160], reference[:160]) is None
