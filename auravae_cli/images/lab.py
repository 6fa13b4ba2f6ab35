"""Convert CIE Lab (with the white of D50, as in TIFF) to sRGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.images.alpha import bands
from auravae_cli.images.colour import encode_srgb

_D50 = np.array([0.96422, 1.0, 0.82521])
# XYZ of D50 => linear sRGB, adapted by Bradford (the inverse of the ICC's sRGB profile)
_TO_RGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)


def lab_to_srgb(values: NDArray[Any]) -> NDArray[Any]:
    """Convert [H, W, 3], uint8 or uint16, a and b in two's complement => sRGB of the same type."""
    top = np.iinfo(values.dtype).max
    unit = 1 if values.dtype == np.uint8 else 256
    signed = values.view(f"i{values.dtype.itemsize}") if values.dtype.isnative else values
    pixels = np.empty(values.shape, values.dtype)
    for rows in bands(values.shape):
        lightness = values[rows, :, 0] * (100 / top)
        a, b = (signed[rows, :, n] / unit for n in (1, 2))
        y = (lightness + 16) / 116
        f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
        xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * _D50
        pixels[rows] = np.rint(encode_srgb(xyz @ _TO_RGB.T) * top).astype(values.dtype)
    return pixels
