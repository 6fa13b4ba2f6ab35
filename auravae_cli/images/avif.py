"""AVIF: its bit depth and its colours, which Pillow does not report."""

from __future__ import annotations

from auravae_cli.images.boxes import boxes, colr_of, inside, primary_properties
from auravae_cli.images.colour import Colours


def depth(data: bytes) -> int:
    """Return 8, 10 or 12 bits: of its own coding, or of its tiles'."""
    properties = [*primary_properties(data), *boxes(inside(data, b"meta", b"iprp", b"ipco"))]
    for kind, content in properties:
        if kind == b"av1C" and len(content) > 2 and content[2] & 0x40:
            return 12 if content[2] & 0x20 else 10
        if kind == b"av1C":
            return 8
    return 8


def colours(data: bytes) -> Colours:
    """Return the colours of the primary picture. Raises InputImageError if sRGB cannot show them."""
    return colr_of(primary_properties(data)).colours
