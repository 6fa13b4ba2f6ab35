"""HEIC and HEIF, as written by phones, through pillow-heif (libheif)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from auravae_cli.images.boxes import Colr
from auravae_cli.images.extra import required
from auravae_cli.images.samples import Pixels, Samples, to_srgb


class HeifPicture:
    """The primary picture of a file; libheif turns it upright."""

    stands_upright = True

    def __init__(self, source: Path | BinaryIO) -> None:
        heif = required("pillow_heif", "a HEIC picture")
        self._file: Any = heif.open_heif(source, convert_hdr_to_8bit=False)
        width, height = self._file.size
        self.size: tuple[int, int] = (height, width)

    def pixels(self, background: str, notices: list[str]) -> Pixels:
        """Return opaque sRGB [H, W, 3]; uint16 if there are more than 8 bits per channel."""
        info = self._file.info
        numbers = info.get("nclx_profile") or {}
        described = Colr(
            numbers=(numbers["color_primaries"], numbers["transfer_characteristics"])
            if numbers
            else None,
            icc=info.get("icc_profile") or None,
        )
        colours = described.colours
        values = np.asarray(self._file)
        if values.ndim == 2:
            values = values[..., None]
        if len(self._file) > 1:
            notices.append(f"primary picture of {len(self._file)} used")
        is_multiplied = bool(getattr(self._file, "premultiplied_alpha", False))
        return to_srgb(Samples(values, colours, is_multiplied), background, notices)

    def orientation(self, notices: list[str]) -> int:
        """Return 1: no orientation remains."""
        return 1
