"""How close two pictures are. Pixels uint8 [H, W, 3], float64 inside."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 11


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, for a data range of 255.

    Infinite where the pictures are equal.
    """
    difference = image.astype(np.float64) - reference.astype(np.float64)
    mse = float(np.mean(np.square(difference)))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Structural similarity (Wang et al. 2004), at most 1, mean over pixels and RGB channels.

    An 11 x 11 Gaussian window of standard deviation 1.5, data range 255, K1 0.01, K2 0.03, only
    windows that lie wholly inside the picture. None where the picture is smaller than a window.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    x, y = (a.astype(np.float64) for a in (image, reference))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _gaussian_filter(x), _gaussian_filter(y)
    var_x = _gaussian_filter(x * x) - mean_x * mean_x
    var_y = _gaussian_filter(y * y) - mean_y * mean_y
    covariance = _gaussian_filter(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.mean(luminance * structure))


def _gaussian_filter(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian window's mean at every position where it fits, over the first two axes."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = image.shape[axis] - SSIM_WINDOW + 1
        parts = [np.take(image, range(i, i + length), axis) for i in range(SSIM_WINDOW)]
        image = np.zeros_like(parts[0])
        for weight, part in zip(kernel, parts, strict=True):
            image += weight * part
    return image
