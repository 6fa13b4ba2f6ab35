"""Composite alpha on a background, on the sRGB values, as browsers do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

_BAND_PIXELS = 1 << 20  # converted at once


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield all rows of [H, W, C], some at a time."""
    at_once = max(1, _BAND_PIXELS // shape[1])
    for start in range(0, shape[0], at_once):
        yield slice(start, min(shape[0], start + at_once))


def composite(
    colours: NDArray[Any], alpha: NDArray[Any], background: str, is_multiplied: bool = False
) -> NDArray[Any]:
    """Composite [H, W, 3] and [H, W, 1] of one type => opaque [H, W, 3]; colours may be premultiplied."""
    top = float(np.iinfo(colours.dtype).max)
    behind = np.array(ImageColor.getrgb(background)[:3]) * (top / 255)
    weight = alpha / float(np.iinfo(alpha.dtype).max)
    front = colours if is_multiplied else colours * weight
    blended = front + behind * (1 - weight)
    return np.rint(np.minimum(blended, top)).astype(colours.dtype)
