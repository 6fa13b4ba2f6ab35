"""What Pillow ignores in a PNG: check sums, declared colours, transparent colours of 16 bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import takewhile
from typing import BinaryIO

from auravae_cli.images.colour import Colours, by_gamma, by_numbers

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IDAT = zlib.crc32(b"IDAT")
_TAGS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # Pillow reads EXIF data from all of these


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bytes]]:
    """Yield the chunks, as far as they are complete: type, content and check sum."""
    view, place = memoryview(data), len(_SIGNATURE)
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + size
        yield kind, view[place + 8 : end], data[end : end + 4]
        place = end + 4


def may_have_tags_behind(file: BinaryIO) -> bool:
    """Return whether chunks that can hold an orientation follow the pixels; only the heads of chunks are read."""
    before, place, seen = file.tell(), len(_SIGNATURE), False
    try:
        while True:
            file.seek(place)
            head = file.read(8)
            size, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"IEND")
            if kind == b"IEND" or (seen and kind in _TAGS):
                return bool(kind != b"IEND")
            seen |= kind == b"IDAT"
            place += 12 + size
    finally:
        file.seek(before)


def check_pixels(data: bytes) -> None:
    """Check the sums of pixels, which Pillow ignores: a changed byte can decode wrongly. Raises ValueError."""
    for kind, content, check in chunks(data):
        if kind == b"IDAT" and zlib.crc32(content, _IDAT) != int.from_bytes(check, "big"):
            raise ValueError("IDAT: wrong check sum")
        if kind == b"IEND":
            return
    raise ValueError("the end (IEND) is missing")


def _declared(data: bytes) -> dict[bytes, bytes]:
    """Return the small chunks before the pixels."""
    before = takewhile(lambda chunk: chunk[0] != b"IDAT", chunks(data))
    return {kind: bytes(content) for kind, content, _ in before if len(content) <= 1024}


def colours(data: bytes, icc: bytes | None) -> Colours:
    """Return the colours by cICP, the profile, sRGB, or gAMA and cHRM, in the PNG specification's order.

    Raises InputImageError if cICP names colours that sRGB cannot show.
    """
    found = _declared(data)
    numbers = found.get(b"cICP", b"")
    if len(numbers) == 4:
        return by_numbers(numbers[0], numbers[1])
    if icc:
        return Colours(icc=icc)
    if b"sRGB" in found:
        return Colours()
    exponent, primaries = None, None
    gamma, places = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    if len(gamma) == 4 and (value := struct.unpack(">I", gamma)[0]):
        exponent = 100_000 / value
    if len(places) == 32:
        white, rest = struct.unpack(">2I6I", places)[:2], struct.unpack(">2I6I", places)[2:]
        primaries = tuple(number / 100_000 for number in (*rest, *white))
    return by_gamma(exponent, primaries)


def transparent_colour(data: bytes) -> tuple[int, ...] | None:
    """Return the samples of tRNS, one or three, in the picture's own depth."""
    content = _declared(data).get(b"tRNS", b"")
    if len(content) not in (2, 6):
        return None
    return struct.unpack(f">{len(content) // 2}H", content)
