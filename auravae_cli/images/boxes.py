"""Boxes of AVIF, HEIC, JPEG 2000 and JPEG XL files (ISO 14496-12), which describe the pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from auravae_cli.images.colour import Colours, by_numbers

Content = bytes | memoryview
Box = tuple[bytes, memoryview]  # type, content


def boxes(data: Content) -> Iterator[Box]:
    """Yield the consecutive boxes in ``data``; a truncated one ends them."""
    data, place = memoryview(data), 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if size == 1 and place + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = place + size if size else len(data)
        if end < start or end > len(data):
            return
        yield kind, data[start:end]
        place = end


def inside(data: Content, *path: bytes) -> memoryview:
    """Return the content of the first box at a path of types; empty if there is none."""
    data = memoryview(data)
    for name in path:
        data = next((content for kind, content in boxes(data) if kind == name), memoryview(b""))
        if name == b"meta":
            data = data[4:]  # version and flags
    return data


@dataclass(frozen=True)
class Colr:
    """A colour box: the numbers of H.273 (primaries, transfer), or a profile."""

    numbers: tuple[int, int] | None = None
    icc: bytes | None = None

    @property
    def colours(self) -> Colours:
        """Return the colours; a profile takes precedence over numbers. Raises InputImageError if sRGB cannot show them."""
        return Colours(icc=self.icc) if self.icc else by_numbers(*(self.numbers or (1, 13)))


def colr_of(properties: list[Box]) -> Colr:
    """Return the contents of the ``colr`` boxes among an item's properties."""
    numbers, icc = None, None
    for kind, content in properties:
        if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 10:
            numbers = struct.unpack_from(">HH", content, 4)
        elif kind == b"colr" and bytes(content[:4]) in (b"prof", b"rICC"):
            icc = bytes(content[4:])
    return Colr(numbers, icc)


def primary_properties(data: Content) -> list[Box]:
    """Return the properties of the primary item of an AVIF or HEIC file; of all items if none is named."""
    meta = inside(data, b"meta")
    properties = list(boxes(inside(meta, b"iprp", b"ipco")))
    pitm, ipma = inside(meta, b"pitm"), inside(meta, b"iprp", b"ipma")
    try:
        places = _associated(pitm, ipma)
    except (struct.error, IndexError):
        places = None
    if places is None:
        return properties
    return [properties[place - 1] for place in places if 0 < place <= len(properties)]


def _associated(pitm: memoryview, ipma: memoryview) -> list[int] | None:
    """Return the numbers of the primary item's properties, from 1."""
    if not pitm or not ipma:
        return None
    item = struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0]
    is_long, is_wide = ipma[0] >= 1, ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    place = 8
    for _ in range(count):
        found = struct.unpack_from(">I" if is_long else ">H", ipma, place)[0]
        place += 4 if is_long else 2
        size = ipma[place]
        numbers = struct.unpack_from(f">{size}{'H' if is_wide else 'B'}", ipma, place + 1)
        place += 1 + size * (2 if is_wide else 1)
        if found == item:
            return [number & (0x7FFF if is_wide else 0x7F) for number in numbers]
    return None
