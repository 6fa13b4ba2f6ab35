"""JPEGs of 12 bits per sample, through imagecodecs (libjpeg-turbo 3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.colour import Colours
from auravae_cli.images.extra import required
from auravae_cli.images.orientation import valid
from auravae_cli.images.samples import Pixels, Samples, to_srgb, widened

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers before the pixels, and their contents."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            return
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + size]
        place += 2 + size


class Jpeg12Picture:
    """A JPEG whose frame header states 12 bits."""

    stands_upright = False

    def __init__(self, data: bytes, frame: bytes) -> None:
        self._data, self._channels = data, frame[5]
        self.size = (int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"))

    @classmethod
    def of(cls, data: bytes) -> Jpeg12Picture | None:
        """Return the picture, or None if the data are not such a JPEG."""
        if data[:2] != b"\xff\xd8":
            return None
        for marker, content in segments(data):
            if marker in _FRAMES and len(content) > 5:
                return cls(data, content) if content[0] == 12 else None
        return None

    def orientation(self, notices: list[str]) -> int:
        """Return the orientation of its EXIF data, if valid."""
        tags = Image.Exif()
        try:
            tags.load(next((c for m, c in segments(self._data) if c[:6] == b"Exif\0\0"), b""))
            return valid(tags.get(ExifTags.Base.Orientation, 1))
        except Exception:  # the pixels are sound, whatever the EXIF data are
            return 1

    def pixels(self, background: str, notices: list[str]) -> Pixels:
        """Return sRGB uint16 [H, W, 3]."""
        codecs = required("imagecodecs", "a JPEG of 12 bits a sample")
        if self._channels not in (1, 3):
            raise InputImageError("a JPEG of 12 bits in CMYK: save it as RGB first")
        values = codecs.jpeg8_decode(self._data)
        parts = [c for m, c in segments(self._data) if m == 0xE2 and c[:12] == b"ICC_PROFILE\0"]
        icc = b"".join(part[14:] for part in sorted(parts, key=lambda part: part[12]))
        samples = widened(np.asarray(values).reshape(*self.size, self._channels), 12)
        return to_srgb(Samples(samples, Colours(icc=icc or None)), background, notices)
