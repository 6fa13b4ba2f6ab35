"""The EXIF orientation of a picture, 1 to 8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

_XMP = ("XML:com.adobe.xmp", "xmp", "Raw profile type xmp")


def exif_orientation(image: Image.Image, notices: list[str], *, decodes: bool = True) -> int:
    """Return the tag; 1 if there is none, or it is invalid.

    Of a PNG without a tag before the pixels, this decodes the picture, since one may follow, unless ``decodes``
    is false. To notice damage, load the picture first.
    """
    # Pillow falls back on XMP, whose orientation browsers, for example, ignore.
    hidden = {key: image.info.pop(key) for key in _XMP if key in image.info}
    try:
        tags = image.getexif() if decodes else Image.Image.getexif(image)  # that of a PNG loads it
        return valid(tags.get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # the pixels are sound, whatever the EXIF data are
        notices.append(f"EXIF data ignored, upright assumed ({error or type(error).__name__})")
        return 1
    finally:
        image.info.update(hidden)


def valid(orientation: Any) -> int:
    """Return the orientation of a tag's value: 1 if it is invalid."""
    try:
        orientation = int(orientation)
    except (TypeError, ValueError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def swaps_sides(orientation: int) -> bool:
    """Return whether height and width are exchanged."""
    return orientation in (5, 6, 7, 8)


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to [H, W, C], like `ImageOps.exif_transpose` does at 8 bits."""
    if swaps_sides(orientation):
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])
