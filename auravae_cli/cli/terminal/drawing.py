"""Convert pixels to what a terminal draws: characters, or the sequences of an image protocol."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest

import numpy as np
from PIL import Image

from auravae_cli.cli.terminal.lines import inert
from auravae_cli.cli.terminal.protocol import Protocol
from auravae_cli.images.read import Pixels, to_8_bit

SHADES = " .:-=+*#%@"
RESET = "\x1b[0m"
_LEAST = (6, 2)  # columns and lines of a picture in a grid
_CHUNK = 4096  # bytes of base64 per sequence of kitty's protocol
_LEVELS = np.array([0, 95, 135, 175, 215, 255])  # of red, green and blue in the 256 colours


def characters(pixels: Pixels, width: int, protocol: Protocol) -> list[str]:
    """Return a picture as lines of ``width`` characters, each about twice as high as wide."""
    lines = max(1, round(width * pixels.shape[0] / pixels.shape[1] / 2))
    if protocol is Protocol.ascii:
        return shades(resized(pixels, lines, width))
    return half_blocks(resized(pixels, 2 * lines, width), protocol is Protocol.blocks256)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize uint8 or uint16 [H, W, 3] => uint8 [height, width, 3]; enlarged cells stay sharp."""
    image = Image.fromarray(to_8_bit(pixels))
    kind = Image.Resampling.BOX if width <= image.width else Image.Resampling.NEAREST
    return np.asarray(image.resize((width, height), kind))


def shades(pixels: Pixels) -> list[str]:
    """Return a character per pixel, by its brightness: plain text."""
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    places = grey * len(SHADES) // 256
    return ["".join(SHADES[place] for place in row).rstrip() for row in places]


def half_blocks(pixels: Pixels, only_256: bool) -> list[str]:
    """Return two pixels per character, the upper as foreground, the lower as background."""
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        pairs = (
            f"\x1b[38;{_colour(up, only_256)};48;{_colour(low, only_256)}m"
            for up, low in zip(upper, lower, strict=True)
        )
        runs = ((colours, sum(1 for _ in run)) for colours, run in groupby(pairs))
        lines.append("".join(f"{colours}{'▀' * number}" for colours, number in runs) + RESET)
    return lines


def _colour(pixel: Pixels, only_256: bool) -> str:
    if not only_256:
        return "2;" + ";".join(map(str, pixel.tolist()))
    values = pixel.astype(int)
    cube = np.abs(values[:, None] - _LEVELS).argmin(axis=1)
    step = int(np.clip(round((values.mean() - 8) / 10), 0, 23))
    grey_error = np.square(values - (8 + 10 * step)).sum()
    if grey_error < np.square(values - _LEVELS[cube]).sum():
        return f"5;{232 + step}"
    return f"5;{16 + 36 * cube[0] + 6 * cube[1] + cube[2]}"


def kitty(pixels: Pixels, columns: int, lines: int) -> str:
    """Return the kitty graphics protocol: a PNG that the terminal scales to the given cells."""
    buffer = io.BytesIO()
    Image.fromarray(to_8_bit(pixels)).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,c={columns},r={lines},q=2," if number == 0 else ""
        parts.append(f"\x1b_G{first}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def sixel(pixels: Pixels) -> str:
    """Return DEC sixels of 255 colours, in bands of six rows of pixels."""
    image = Image.fromarray(to_8_bit(pixels)).quantize(255)
    palette = np.array(image.getpalette(), int).reshape(-1, 3)
    places = np.asarray(image)
    height, width = places.shape
    colours = "".join(
        f"#{i};2;" + ";".join(str(round(value * 100 / 255)) for value in palette[i])
        for i in np.unique(places)
    )
    bands = "-".join("$".join(_band(places[top : top + 6])) for top in range(0, height, 6))
    return f'\x1bP0;1;0q"1;1;{width};{height}{colours}{bands}\x1b\\'


def _band(places: Pixels) -> Iterator[str]:
    """Yield the sixels of up to six rows, colour by colour."""
    weights = 1 << np.arange(len(places))
    for colour in np.unique(places):
        bits = weights @ (places == colour)
        runs = ((chr(63 + bit), sum(1 for _ in run)) for bit, run in groupby(bits.tolist()))
        text = (f"!{number}{sign}" if number > 3 else sign * number for sign, number in runs)
        yield f"#{colour}{''.join(text)}"


Cells = Sequence[tuple[str, Pixels]]


def grid(cells: Cells, width: int, height: int | None, protocol: Protocol) -> list[str]:
    """Return captioned pictures in rows, drawn with characters on ``width`` columns.

    They fill ``height`` lines at most, if boxes of `_LEAST` columns and lines fit; rows have four pictures if
    it is None.
    """
    number, wide, high = _layout([pixels for _, pixels in cells], width, height)
    gap = 1 if height is None else _gap(-(-len(cells) // number))
    lines = []
    for start in range(0, len(cells), number):
        row = cells[start : start + number]
        drawn = [_boxed(pixels, wide, high, protocol) for _, pixels in row]
        lines.append("  ".join(_caption(text, wide).ljust(wide) for text, _ in row).rstrip())
        for parts in zip_longest(*drawn, fillvalue=" " * wide):
            lines.append("  ".join(parts).rstrip())
        lines += [""] * (gap if start + number < len(cells) else 0)
    return lines


def _gap(rows: int) -> int:
    """Return the empty lines between rows: none where many rows share a window."""
    return int(rows <= 2)


def _boxed(pixels: Pixels, wide: int, high: float, protocol: Protocol) -> list[str]:
    """Return a picture as lines that take ``wide`` columns on the screen, ``high`` lines at most."""
    columns = _fitted(pixels, wide, high)
    lines = characters(pixels, columns, protocol)
    if protocol is Protocol.ascii:  # lines without their ends
        return [line.ljust(wide) for line in lines]
    return [line + " " * (wide - columns) for line in lines]


def _fitted(pixels: Pixels, wide: int, high: float) -> int:
    """Return the columns of a picture in a box of ``wide`` columns and ``high`` lines."""
    return max(1, int(min(wide, 2 * high * pixels.shape[1] / pixels.shape[0])))


def _caption(text: str, width: int) -> str:
    """Return the end of a caption, the most telling part, without a file's suffix if it is still too long."""
    text = inert(text)
    if len(text) > width:
        text = re.sub(r"\.[A-Za-z]\w{1,11}$", "", text)
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def _layout(pictures: Sequence[Pixels], width: int, height: int | None) -> tuple[int, int, float]:
    """Return the pictures in a row, and the columns and lines of the box of each: as large as the height allows.

    A picture twice as large makes up for another of half the size.
    """
    number = len(pictures)
    if height is None:
        number = min(4, number)
        return number, max(1, (width - 2 * (number - 1)) // number), math.inf
    best = (-1.0, 0, 0, 0)
    for columns in range(1, number + 1):
        wide = (width - 2 * (columns - 1)) // columns
        rows = -(-number // columns)
        high = (height - _gap(rows) * (rows - 1)) // rows - 1  # without the caption
        if wide >= _LEAST[0] and high >= _LEAST[1]:
            drawn = sum(math.log(_fitted(pixels, wide, high)) for pixels in pictures)
            best = max(best, (drawn, columns, wide, high))
    if not best[1]:  # too many for the window: it scrolls
        return max(1, (width + 2) // (_LEAST[0] + 2)), _LEAST[0], math.inf
    return best[1:]
