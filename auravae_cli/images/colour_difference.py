"""CIEDE2000 between sRGB pictures (CIE 142-2001, as in Sharma, Wu and Dalal 2005), with the white of D65."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from auravae_cli.images.read import Pixels

Floats = NDArray[np.float64]

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)  # fmt: skip
WHITE = TO_XYZ.sum(1)
EPSILON, KAPPA = 216 / 24389, 24389 / 27


def ciede2000(image: Pixels, reference: Pixels) -> float:
    """The mean difference of pictures, uint8 [H, W, 3]; 1 is about what the eye just sees."""
    return float(difference(lab(image), lab(reference)).mean())


def lab(picture: Pixels) -> Floats:
    """CIELAB [..., 3]: L* of 0 to 100, a*, b*."""
    values = picture / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = linear @ TO_XYZ.T / WHITE
    f = np.where(xyz > EPSILON, np.cbrt(xyz), (KAPPA * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def difference(first: Floats, second: Floats) -> Floats:
    """CIEDE2000 of colours in CIELAB [..., 3]; every weight is 1."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(colours, -1, 0) for colours in (first, second))
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * _saturation(mean_chroma)
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = h2 - h1
    turn = np.where(c1 * c2 == 0, 0, turn - 360 * (turn > 180) + 360 * (turn < -180))
    hue_step = 2 * np.sqrt(c1 * c2) * _sin(turn / 2)
    far = np.abs(h1 - h2) > 180
    hue = (h1 + h2 + np.where(far & (c1 * c2 > 0), np.where(h1 + h2 < 360, 360, -360), 0)) / 2
    hue = np.where(c1 * c2 == 0, h1 + h2, hue)
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    weight = (
        1
        - 0.17 * _cos(hue - 30)
        + 0.24 * _cos(2 * hue)
        + 0.32 * _cos(3 * hue + 6)
        - 0.2 * _cos(4 * hue - 63)
    )
    offset = (lightness - 50) ** 2
    in_l = (l2 - l1) / (1 + 0.015 * offset / np.sqrt(20 + offset))
    in_c = (c2 - c1) / (1 + 0.045 * chroma)
    in_h = hue_step / (1 + 0.015 * chroma * weight)
    angle = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * _saturation(chroma) * _sin(angle)
    found: Floats = np.sqrt(np.maximum(0, in_l**2 + in_c**2 + in_h**2 + rotation * in_c * in_h))
    return found


def _saturation(chroma: Floats) -> Floats:
    return np.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _sin(degrees: Floats) -> Floats:
    return np.sin(np.radians(degrees))


def _cos(degrees: Floats) -> Floats:
    return np.cos(np.radians(degrees))
