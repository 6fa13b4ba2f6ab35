"""Read picture files to pixels. Every conversion that changes colours gives a notice.

The order is: recognise the file, check the size, decode, convert declared colours to sRGB, composite
alpha on a background, apply the EXIF orientation. docs/pictures.md lists what is read, and by what.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.defaults import MAX_PIXELS
from auravae_cli.errors import InputImageError
from auravae_cli.images.decoder_warnings import decoder_warnings
from auravae_cli.images.opening import FORMATS as FORMATS, opened
from auravae_cli.images.orientation import swaps_sides, turn_upright
from auravae_cli.images.picture import Picture
from auravae_cli.images.pillow_picture import PillowPicture
from auravae_cli.images.samples import Pixels as Pixels


@dataclass(frozen=True)
class LoadedImage:
    """A picture as read.

    ``pixels`` is sRGB [H, W, 3], uint8, or uint16 from a file of more than 8 bits a channel.
    ``sha256`` is that of the file's bytes, ``exif_orientation`` the tag (1 to 8) that has been applied.
    """

    pixels: Pixels
    sha256: str
    exif_orientation: int
    notices: tuple[str, ...]


def read_image(
    data: bytes,
    *,
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> LoadedImage:
    """Decode a picture from a file's bytes.

    Args:
        data: the whole file, in any of `FORMATS`, and HEIC or JPEG XL with the extra ``pictures``;
            the content decides, not a name.
        background: alpha is composited on this colour, as Pillow spells it (``white``, ``#204060``).
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        InputImageError: the bytes are not a picture, or it is damaged, oversized, undefined, or not
            supported, or only with the extra.
    """
    with opened(data, max_pixels) as picture:
        return _load(picture, hashlib.sha256(data).hexdigest(), background)


def read_size(
    source: bytes | Path | BinaryIO, *, max_pixels: int | None = MAX_PIXELS
) -> tuple[int, int]:
    """Return the (height, width) of the upright picture, from its header. Raises InputImageError."""
    with opened(source, max_pixels) as picture:
        height, width = picture.size
        turned = not picture.stands_upright and swaps_sides(picture.orientation([]))
        return (width, height) if turned else (height, width)


def count_pixels(file: bytes | Path) -> int:
    """Return the number of pixels that a file claims to have; 0 if it is not a picture. Fast."""
    try:
        with opened(file) as picture:
            height, width = picture.size
            return height * width
    except InputImageError:
        return 0


def from_pillow(image: Image.Image, *, background: str = "white") -> LoadedImage:
    """Read a Pillow image of any mode, like the file that it could have come from.

    Its ``sha256`` is that of the pixels. Raises InputImageError if its colours are undefined.
    """
    try:
        return _load(PillowPicture(image), None, background)
    except (OSError, ValueError) as error:
        raise InputImageError(f"cannot bring mode {image.mode} to RGB: {error}") from error


def _load(picture: Picture, sha256: str | None, background: str) -> LoadedImage:
    notices: list[str] = []
    with decoder_warnings() as heard:
        pixels = picture.pixels(background, notices)
        orientation = picture.orientation(notices)
        if not picture.stands_upright:
            pixels = turn_upright(pixels, orientation)
    notices += sorted({f"the decoder warns: {warning}" for warning in heard})
    return LoadedImage(
        pixels=pixels,
        sha256=sha256 or hashlib.sha256(pixels.tobytes()).hexdigest(),
        exif_orientation=orientation,
        notices=tuple(notices),
    )


def to_unit(pixels: Pixels, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Convert uint8 or uint16 [H, W, 3] => float32 [3, H, W] in [-1, 1], into ``out`` if given."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    if out is None:
        out = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):  # one plane at a time, which stays in the cache
        plane = out[channel]
        # Dividing first gives v of 255 and 257 v of 65535 the same value.
        np.divide(pixels[..., channel], top, out=plane, dtype=np.float32)
        plane *= 2
        plane -= 1
    return out


def to_8_bit(pixels: Pixels) -> Pixels:
    """Convert uint8 or uint16 => uint8 of the same shape, rounded to nearest."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def from_unit(image: NDArray[np.float32], bits: int = 8) -> Pixels:
    """Convert float [3, H, W], clipped to [-1, 1] => uint8 (or uint16) [H, W, 3], rounded to nearest."""
    top, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    scaled = np.clip((image.astype(np.float32) + 1) / 2, 0, 1) * top
    return np.ascontiguousarray(np.rint(scaled).astype(dtype).transpose(1, 2, 0))
