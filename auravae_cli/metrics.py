"""How close two pictures are. Pixels uint8 [H, W, 3]; exact integers or float64 inside."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 11
_STRIP = 32  # rows of windows at a time: what they need stays in the cache


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, for a data range of 255.

    Infinite where the pictures are equal.
    """
    difference = np.subtract(image, reference, dtype=np.int16)
    mse = int(np.square(difference, dtype=np.int32).sum(dtype=np.int64)) / difference.size
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Structural similarity (Wang et al. 2004), at most 1, mean over pixels and RGB channels.

    An 11 x 11 Gaussian window of standard deviation 1.5, data range 255, K1 0.01, K2 0.03, only
    windows that lie wholly inside the picture. None where the picture is smaller than a window.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    height, width = (side - SSIM_WINDOW + 1 for side in image.shape[:2])
    total = 0.0
    for top in range(0, height, _STRIP):
        rows = slice(top, min(top + _STRIP, height) + SSIM_WINDOW - 1)
        for channel in range(3):
            total += _ssim_sum(image[rows, :, channel], reference[rows, :, channel])
    return float(total / (height * width * 3))


def _ssim_sum(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """The sum over all windows of one channel [h, w]."""
    x, y = (a.astype(np.float64) for a in (image, reference))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _gaussian_filter(x), _gaussian_filter(y)
    var_x = _gaussian_filter(x * x) - mean_x * mean_x
    var_y = _gaussian_filter(y * y) - mean_y * mean_y
    covariance = _gaussian_filter(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.sum(luminance * structure))


def _gaussian_filter(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian window's mean at every position where it fits, over both axes."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / 1.5) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = image.shape[axis] - SSIM_WINDOW + 1
        lines = np.moveaxis(image, axis, 0)
        filtered = np.zeros((length, lines.shape[1]))
        for start, weight in enumerate(kernel):
            filtered += weight * lines[start : start + length]
        image = np.moveaxis(filtered, 0, axis)
    return image
