"""TIFFs: read by Pillow (libtiff) if it reads them correctly, otherwise by tifffile."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import InputImageError
from auravae_cli.images.colour import Colours
from auravae_cli.images.extra import INSTALL
from auravae_cli.images.lab import lab_to_srgb
from auravae_cli.images.orientation import valid
from auravae_cli.images.samples import Pixels, Samples, levels, to_srgb, widened
from auravae_cli.images.tiff_frames import Frame

_ORIENTATION, _PROFILE = 274, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR, _LAB = 0, 1, 2, 6, 8
_NO_ALPHA, _MULTIPLIED = 0, 1
_JPEG = (6, 7)
_LOG = logging.getLogger("tifffile")


def tiff_file(source: Path | BinaryIO) -> Any:
    """Return a `tifffile.TiffFile`; its warnings are dropped, since the pixels tell."""
    import tifffile

    if not _LOG.handlers:
        _LOG.addHandler(logging.NullHandler())
    return tifffile.TiffFile(source)


class TiffPicture:
    """A chosen frame that Pillow does not read correctly."""

    stands_upright = False

    def __init__(self, frame: Frame) -> None:
        self._page, self._notices = frame.page, frame.notices
        self.size: tuple[int, int] = (self._page.imagelength, self._page.imagewidth)

    def orientation(self, notices: list[str]) -> int:
        """Return the TIFF tag."""
        tag = self._page.tags.get(_ORIENTATION)
        return valid(tag.value) if tag is not None else 1

    def pixels(self, background: str, notices: list[str]) -> Pixels:
        """Return opaque sRGB [H, W, 3]; uint16 if there are more than 8 bits per channel."""
        values = self._values()
        notices += self._notices
        page = self._page
        if page.photometric == _LAB:
            notices.append("Lab colours converted to sRGB")
            return lab_to_srgb(values[..., :3])
        bits = page.bitspersample
        if isinstance(bits, tuple):
            raise InputImageError(f"a TIFF with channels of {bits} bits: save it as PNG first")
        if values.dtype.kind in "iu" and 8 < bits < 16:
            values = widened(values, bits)
        elif values.dtype.kind == "i" and bits <= 16:
            raise InputImageError(
                "a TIFF of signed samples: its white is unknown; save it unsigned"
            )
        else:
            values = levels(values, notices)
        if page.photometric == _WHITE_IS_ZERO:
            values = np.iinfo(values.dtype).max - values
        samples = Samples(values, self._colours(), _MULTIPLIED in page.extrasamples[:1])
        return to_srgb(samples, background, notices)

    def _colours(self) -> Colours:
        tag = self._page.tags.get(_PROFILE)
        return Colours(icc=bytes(tag.value)) if tag is not None else Colours()

    def _values(self) -> NDArray[Any]:
        """Return [H, W, C]: grey or colours, and alpha."""
        page = self._page
        colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _LAB: 3}.get(page.photometric)
        if page.photometric == _YCBCR and page.compression in _JPEG:
            colours = 3  # decoded to RGB
        if colours is None or page.imagedepth != 1:
            raise InputImageError(
                f"a TIFF of {page.photometric!r}, {page.bitspersample} bits: save it as RGB first"
            )
        _check_whole(page)
        try:
            values = page.asarray().reshape(_shape(page))
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            what = f"a TIFF of {page.bitspersample} bits, compression {page.compression.name}"
            raise InputImageError(f"{what}: to read it, {INSTALL}") from error
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            values = np.moveaxis(values, 0, -1)
        extra = page.extrasamples[:1]
        kept = colours + (bool(extra) and extra[0] != _NO_ALPHA)
        return np.asarray(values[..., :kept])


def _shape(page: Any) -> tuple[int, int, int]:
    height, width, count = page.imagelength, page.imagewidth, page.samplesperpixel
    return (
        (count, height, width) if page.planarconfig == 2 and count > 1 else (height, width, count)
    )


def _check_whole(page: Any) -> None:
    """Raise if parts are missing, for which tifffile returns zeros."""
    end = page.parent.filehandle.size
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not parts or any(size == 0 or start + size > end for start, size in parts):
        raise ValueError("parts of the picture are missing")
