"""Similarity of two pictures: uint8 [H, W, 3], sRGB as stored, data range 255.

There is no conversion to grey or luma: PSNR pools the three channels, SSIM and MS-SSIM average over
them. Computed in exact integers or float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 11
UNIFORM_WINDOW = 7
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from fine to coarse
MS_SSIM_SIDE = (SSIM_WINDOW - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1  # 161
_STRIP = 32  # rows of windows at a time: their data stay in the cache


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels, for a data range of 255.

    Infinite if the pictures are equal.
    """
    difference = np.subtract(image, reference, dtype=np.int16)
    mse = int(np.square(difference, dtype=np.int32).sum(dtype=np.int64)) / difference.size
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def psnr_or_none(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Return `psnr`, or None if the pictures are equal: JSON has no infinity."""
    value = psnr(image, reference)
    return value if math.isfinite(value) else None


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Return the structural similarity (Wang et al. 2004), at most 1, mean over pixels and RGB channels.

    An 11 x 11 Gaussian window of standard deviation 1.5, data range 255, K1 0.01, K2 0.03, only windows
    entirely inside the picture. None if the picture is smaller than a window.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    return float(_similarity(image, reference)[0].mean())


def ssim_mirrored(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Return `ssim` with a window around every pixel, pictures being mirrored at their borders, as torchmetrics
    computes it.

    Published tables have it; on small pictures it is not comparable to `ssim`. None if the picture is smaller
    than a window.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    half = SSIM_WINDOW // 2
    return ssim(
        *(np.pad(a, ((half, half), (half, half), (0, 0)), "reflect") for a in (image, reference))
    )


def ssim_uniform(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Return the structural similarity with a uniform window of 7 x 7 pixels, as scikit-image computes by
    default: variances are those of samples, over 48 pixels instead of 49.

    Published tables have it; it is not comparable to `ssim`. None if the picture is smaller than a window.
    """
    if min(image.shape[:2]) < UNIFORM_WINDOW:
        return None
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    pixels = UNIFORM_WINDOW**2
    sample = pixels / (pixels - 1)
    total = 0.0
    for channel in range(3):
        x, y = (a[..., channel].astype(np.float64) for a in (image, reference))
        mean_x, mean_y = _window_means(x), _window_means(y)
        var_x = sample * (_window_means(x * x) - mean_x * mean_x)
        var_y = sample * (_window_means(y * y) - mean_y * mean_y)
        covariance = sample * (_window_means(x * y) - mean_x * mean_y)
        luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
        total += float(np.mean(luminance * (2 * covariance + c2) / (var_x + var_y + c2)))
    return total / 3


def _window_means(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of all windows of 7 x 7 inside a plane."""
    for axis in (0, 1):
        sums = np.cumsum(plane, axis)
        sums = np.insert(sums, 0, 0, axis)
        length = plane.shape[axis] - UNIFORM_WINDOW + 1
        upper = np.take(sums, np.arange(UNIFORM_WINDOW, UNIFORM_WINDOW + length), axis)
        plane = (upper - np.take(sums, np.arange(length), axis)) / UNIFORM_WINDOW
    return plane


def ms_ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float | None:
    """Return the multi-scale structural similarity (Wang, Simoncelli, Bovik 2003), at most 1, mean over RGB.

    Five scales, each half the previous one, with the windows and constants of `ssim`. The means of the
    contrast and structure term at four scales and of the full SSIM at the coarsest are multiplied, channel
    by channel, with the paper's exponents; a negative one counts as 0. The result equals that of
    pytorch-msssim, whose numbers papers report, including its treatment of odd sides. None if the
    coarsest scale is smaller than a window: if a side is below 161 pixels.
    """
    return similarity(image, reference)[1]


SSIM_KINDS = {"gaussian": ssim, "mirrored": ssim_mirrored, "uniform": ssim_uniform}


def similarity(
    image: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> tuple[float | None, float | None]:
    """Return both `ssim` and `ms_ssim`, for less than the cost of the two."""
    if min(image.shape[:2]) < MS_SSIM_SIDE:
        return ssim(image, reference), None
    last = len(MS_SSIM_WEIGHTS) - 1
    x, y = image.astype(np.float64), reference.astype(np.float64)
    whole, structure = _similarity(x, y)
    first, product = float(whole.mean()), np.ones(3)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
            whole, structure = _similarity(x, y)
        product *= np.maximum(whole if scale == last else structure, 0) ** weight
    return first, float(product.mean())


def _halve(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of 2 x 2 pixels of [H, W, 3]; an odd side gets a row of zeros before its first row."""
    odd = [(side % 2, 0) for side in image.shape[:2]]
    padded = np.pad(image, (*odd, (0, 0)))
    height, width = (side // 2 for side in padded.shape[:2])
    halved: NDArray[np.float64] = padded.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return halved


def _similarity(
    image: NDArray[Any], reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each channel the mean of SSIM, and that of only its contrast and structure term."""
    height, width = (side - SSIM_WINDOW + 1 for side in image.shape[:2])
    sums = np.zeros((3, 2))
    for top in range(0, height, _STRIP):
        rows = slice(top, min(top + _STRIP, height) + SSIM_WINDOW - 1)
        for channel in range(3):
            sums[channel] += _ssim_sums(image[rows, :, channel], reference[rows, :, channel])
    whole, structure = (sums / (height * width)).T
    return whole, structure


def _ssim_sums(image: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float]:
    """Return the sums over all windows of one channel [h, w]: complete, and without the luminance term."""
    x, y = (a.astype(np.float64) for a in (image, reference))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _gaussian_filter(x), _gaussian_filter(y)
    var_x = _gaussian_filter(x * x) - mean_x * mean_x
    var_y = _gaussian_filter(y * y) - mean_y * mean_y
    covariance = _gaussian_filter(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.sum(luminance * structure)), float(np.sum(structure))


def _gaussian_filter(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian window's mean at every position where it fits, over both axes."""
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
