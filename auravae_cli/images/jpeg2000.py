"""JPEG 2000: its bit depth and its colours, which Pillow does not report."""

from __future__ import annotations

from auravae_cli.errors import InputImageError
from auravae_cli.images.boxes import Content, boxes, inside
from auravae_cli.images.colour import Colours

_SIZES = b"\xff\x4f\xff\x51"  # the start of a codestream
_DESCRIBED = {16: "sRGB", 17: "grey", 18: "sYCC"}  # colour spaces that Pillow converts to RGB


def depth(data: bytes) -> int:
    """Return the bits of the deepest channel. Raises InputImageError if samples are signed."""
    stream = memoryview(data) if data[:4] == _SIZES else inside(data, b"jp2c")
    if len(stream) < 42 or stream[:4] != _SIZES:
        return 8
    count = int.from_bytes(stream[40:42], "big")
    depths = [stream[42 + 3 * n] for n in range(count) if 42 + 3 * n < len(stream)]
    if any(bits & 0x80 for bits in depths):
        raise InputImageError("a JPEG 2000 picture of signed samples: save it as PNG first")
    return max((bits & 0x7F for bits in depths), default=7) + 1


def colours(data: bytes) -> Colours:
    """Return the colours of its header. Raises InputImageError for an unsupported space."""
    for content in _colour_boxes(data):
        method = content[0] if len(content) > 3 else 0
        if method in (2, 3):
            return Colours(icc=bytes(content[3:]))
        if method == 1:
            number = int.from_bytes(content[3:7], "big")
            if number not in _DESCRIBED:
                raise InputImageError(
                    f"a JPEG 2000 picture of colour space {number}: save it as RGB first"
                )
            return Colours()
    return Colours()


def is_ycc(data: bytes) -> bool:
    """Return whether its channels are luma and chroma, by its header."""
    return any(
        content[:1] == b"\1" and content[3:7] == b"\0\0\0\x12" for content in _colour_boxes(data)
    )


def _colour_boxes(data: bytes) -> list[Content]:
    return [content for kind, content in boxes(inside(data, b"jp2h")) if kind == b"colr"]
