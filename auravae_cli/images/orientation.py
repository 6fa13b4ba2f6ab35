"""Which way up a picture stands: the EXIF orientation, 1 to 8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_XMP = ("XML:com.adobe.xmp", "xmp", "Raw profile type xmp")


def exif_orientation(image: Image.Image, notices: list[str]) -> int:
    """The tag; 1 where there is none, or none that means anything.

    Of a PNG this may decode the picture, for the tag may stand behind the pixels: whoever wants to
    know of damage has loaded it before.
    """
    # Pillow falls back on XMP, whose orientation browsers, for one, do not look at.
    hidden = {key: image.info.pop(key) for key in _XMP if key in image.info}
    try:
        return valid(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # the pixels are sound, whatever its EXIF data may be
        notices.append(f"EXIF data ignored, upright assumed ({error or type(error).__name__})")
        return 1
    finally:
        image.info.update(hidden)


def valid(orientation: Any) -> int:
    """The orientation that a tag's value stands for: 1 if it means nothing."""
    try:
        orientation = int(orientation)
    except (TypeError, ValueError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def swaps_sides(orientation: int) -> bool:
    """Whether height and width change places."""
    return orientation in (5, 6, 7, 8)


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to [H, W, C], as `ImageOps.exif_transpose` does at 8 bits."""
    if swaps_sides(orientation):
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])
