"""The header of a JPEG XL codestream (ISO 18181-1, annex D): size and colours, which no reader reports."""

from __future__ import annotations

from dataclasses import dataclass

from auravae_cli.errors import InputImageError
from auravae_cli.images.boxes import boxes
from auravae_cli.images.colour import Colours, by_gamma, by_numbers

_CODESTREAM = b"\xff\x0a"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_WHITES = {1: (0.3127, 0.3290), 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_ALPHA, _SPOT, _FILTER = 0, 2, 5  # kinds of extra channels
_GREY, _XYB = 1, 2  # colour spaces


@dataclass(frozen=True)
class Header:
    """``size`` is (height, width) as coded; the decoder applies ``orientation``."""

    size: tuple[int, int]
    orientation: int
    bits: int
    is_multiplied: bool
    transfer: int  # of H.273
    gamma: float | None  # the decoding exponent, instead of it
    primaries: tuple[float, ...] | None
    has_profile: bool

    @property
    def colours(self) -> Colours:
        """Return the colours. Raises InputImageError for unsupported ones."""
        if self.has_profile:
            raise InputImageError(
                "a JPEG XL picture with an ICC profile, which its reader does not give: "
                "convert it to PNG with djxl first"
            )
        if self.primaries is not None:
            curve = by_numbers(1, self.transfer).curve if self.gamma is None else self.gamma
            return by_gamma(curve, self.primaries)
        return Colours()


def read_header(data: bytes) -> Header:
    """Read the header. Raises InputImageError if it is missing."""
    bits = _Bits(_codestream(data)[2:])
    try:
        size = _size(bits)
        return _metadata(bits, size)
    except IndexError:
        raise InputImageError("damaged picture (JPEG XL): the header breaks off") from None


def _codestream(data: bytes) -> bytes:
    if data[:2] == _CODESTREAM:
        return data[:4096]
    for kind, content in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            return bytes(content[4 * (kind == b"jxlp") :][:4096])
    return b"\0\0"


class _Bits:
    """Reads bits, from the lowest of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def take(self, count: int) -> int:
        value = 0
        for n in range(count):
            byte = self._data[self._place >> 3]
            value |= (byte >> (self._place & 7) & 1) << n
            self._place += 1
        return value

    def choice(self, *ways: tuple[int, int]) -> int:
        """Read U32: one of four forms of a number, each an offset and a number of bits."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)

    def enum(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def signed(self) -> float:
        """Read a coordinate of a colour."""
        value = self.choice((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
        return (-(value + 1) // 2 if value & 1 else value // 2) / 1e6


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)

    def side() -> int:
        if is_small:
            return 8 * (bits.take(5) + 1)
        return bits.choice((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return height, side()
    across, down = _RATIOS[ratio]
    return height, height * across // down


def _skip_preview(bits: _Bits) -> None:
    ways = (
        ((16, 0), (32, 0), (1, 5), (33, 9))
        if bits.take(1)
        else ((1, 6), (65, 8), (321, 10), (1345, 12))
    )
    bits.choice(*ways)
    if not bits.take(3):
        bits.choice(*ways)


def _skip_animation(bits: _Bits) -> None:
    bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
    bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
    bits.take(1)


def _depth(bits: _Bits) -> int:
    if not bits.take(1):
        return bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
    bits.take(4)
    return depth


def _extra_channel(bits: _Bits) -> bool:
    """Return whether colours are premultiplied by this alpha."""
    if bits.take(1):
        return False
    kind = bits.enum()
    _depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.choice((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.take(8)
    if kind == _ALPHA:
        return bool(bits.take(1))
    if kind == _SPOT:
        bits.take(64)
    if kind == _FILTER:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return False


def _metadata(bits: _Bits, size: tuple[int, int]) -> Header:
    if bits.take(1):
        return Header(size, 1, 8, False, 13, None, None, False)
    orientation = 1
    if bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):
            _size(bits)
        if bits.take(1):
            _skip_preview(bits)
        if bits.take(1):
            _skip_animation(bits)
    depth = _depth(bits)
    bits.take(1)
    count = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
    is_multiplied = sum(_extra_channel(bits) for _ in range(count)) > 0
    bits.take(1)  # XYB or not: the decoder returns the described colours
    if bits.take(1):
        return Header(size, orientation, depth, is_multiplied, 13, None, None, False)
    has_profile, space = bool(bits.take(1)), bits.enum()
    if has_profile or space == _XYB:
        return Header(size, orientation, depth, is_multiplied, 13, None, None, has_profile)
    return Header(size, orientation, depth, is_multiplied, *_described(bits, space), False)


def _described(bits: _Bits, space: int) -> tuple[int, float | None, tuple[float, ...]]:
    """Read the transfer of H.273, the exponent of a gamma, and the coordinates of the primaries."""
    number = bits.enum()
    white = (bits.signed(), bits.signed()) if number == 2 else _WHITES.get(number, _WHITES[1])
    primaries = _PRIMARIES[1]
    if space != _GREY:
        number = bits.enum()
        known = _PRIMARIES.get(number, _PRIMARIES[1])
        primaries = known if number != 2 else tuple(bits.signed() for _ in range(6))  # type: ignore[assignment]
    if bits.take(1):
        value = bits.take(24)
        return 13, 1e7 / value if value else None, (*primaries, *white)
    return bits.enum(), None, (*primaries, *white)
