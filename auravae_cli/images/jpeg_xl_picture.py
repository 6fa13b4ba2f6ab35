"""JPEG XL of all bit depths through imagecodecs (libjxl)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from auravae_cli.images.extra import required
from auravae_cli.images.jpeg_xl_header import read_header
from auravae_cli.images.orientation import swaps_sides
from auravae_cli.images.samples import Pixels, Samples, levels, to_srgb


class JpegXlPicture:
    """A picture, or the first frame of a film; libjxl turns it upright."""

    stands_upright = True

    def __init__(self, source: Path | BinaryIO) -> None:
        self._data = source.read_bytes() if isinstance(source, Path) else source.read()
        self._header = read_header(self._data)
        height, width = self._header.size
        self.size = (width, height) if swaps_sides(self._header.orientation) else (height, width)

    def pixels(self, background: str, notices: list[str]) -> Pixels:
        """Return opaque sRGB [H, W, 3]; uint16 if there are more than 8 bits per channel."""
        codecs = required("imagecodecs", "a JPEG XL picture")
        colours = self._header.colours
        values = codecs.jpegxl_decode(self._data, index=0)
        if values.ndim == 2:
            values = values[..., None]
        if values.shape[:2] != self.size:
            raise ValueError(f"{values.shape[:2]} decoded, {self.size} declared")
        samples = Samples(levels(np.asarray(values), notices), colours, self._header.is_multiplied)
        return to_srgb(samples, background, notices)

    def orientation(self, notices: list[str]) -> int:
        """Return 1: no orientation remains."""
        return 1
