"""Text, flat areas and line art, drawn at random: what photographs lack, and a model would smear.

A palette and a content are drawn apart: lettering in greys, saturated areas, both at once ...
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from auravae_cli.images.read import Pixels

Colour = tuple[int, ...]
Palette = Callable[[np.random.Generator], Colour]

LETTERS = np.array(list(string.ascii_letters + string.digits + ".,:;!?-()&%"))
SMALL, LARGE = (8, 17), (17, 33)  # sizes of letters, in pixels
SMALL_SHARE = 0.75
LINE_SPACING = 1.3


def drawn(generator: np.random.Generator, side: int) -> Pixels:
    """A picture of letters, lines and areas: uint8 [side, side, 3]."""
    palette = PALETTES[generator.integers(len(PALETTES))]
    content = generator.random()
    scale = 2 if generator.random() < 0.5 else 1  # then reduced: edges between pixels
    image = Image.new("RGB", (scale * side,) * 2, palette(generator))
    if content > 0.4:
        draw = ImageDraw.Draw(image)
        for _ in range(int(generator.integers(2, 9))):
            _shape(draw, generator, scale * side, palette(generator))
    if scale > 1:
        image = image.resize((side, side), Image.Resampling.BOX)
    if content < 0.7:
        _write(image, generator, palette)
    return np.asarray(image)


def flat(generator: np.random.Generator, side: int) -> Pixels:
    """A picture of one colour: uint8 [side, side, 3]."""
    palette = PALETTES[generator.integers(len(PALETTES))]
    return np.full((side, side, 3), palette(generator), np.uint8)


def _write(image: Image.Image, generator: np.random.Generator, palette: Palette) -> None:
    """Lines of random words over the whole picture, of one size or of a size each."""
    draw, (side, _) = ImageDraw.Draw(image), image.size
    size, ink = _size(generator), _ink(generator, palette, image)
    is_mixed = generator.random() < 0.5
    y = float(generator.integers(-8, 8))
    while y < side:
        words = [
            "".join(generator.choice(LETTERS, int(generator.integers(1, 9))))
            for _ in range(max(2, int(side / size)))
        ]
        x = float(generator.integers(-16, 8))
        font = ImageFont.load_default(size=float(size))
        draw.text((x, y), " ".join(words), fill=ink, font=font)
        y += size * LINE_SPACING
        if is_mixed:
            size, ink = _size(generator), _ink(generator, palette, image)


def _size(generator: np.random.Generator) -> int:
    return int(generator.integers(*(SMALL if generator.random() < SMALL_SHARE else LARGE)))


def _ink(generator: np.random.Generator, palette: Palette, image: Image.Image) -> Colour:
    """The colour, of four, that differs most from the picture's first pixel."""
    ground = np.array(image.getpixel((0, 0)))
    colours = [palette(generator) for _ in range(4)]
    return max(colours, key=lambda colour: int(np.abs(np.array(colour) - ground).sum()))


def _shape(
    draw: ImageDraw.ImageDraw, generator: np.random.Generator, side: int, ink: Colour
) -> None:
    x0, x1, y0, y1 = (float(v) for v in generator.uniform(-0.1 * side, 1.1 * side, 4))
    width = int(generator.integers(1, 6))
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    match generator.integers(6):
        case 0 | 1:
            draw.line((x0, y0, x1, y1), fill=ink, width=width)
        case 2:
            draw.rectangle(box, outline=ink, width=width)
        case 3:
            draw.ellipse(box, outline=ink, width=width)
        case 4:
            draw.rectangle(box, fill=ink)
        case _:
            draw.ellipse(box, fill=ink)


def _black_or_white(generator: np.random.Generator) -> Colour:
    return (255 * int(generator.integers(2)),) * 3


def _grey(generator: np.random.Generator) -> Colour:
    return (int(generator.integers(256)),) * 3


def _saturated(generator: np.random.Generator) -> Colour:
    """At the border of the colour cube: one channel full, one empty; or a grey, to set it off."""
    if generator.random() < 0.25:
        return _grey(generator)
    values = [0, 255, int(generator.integers(256))]
    return tuple(int(value) for value in generator.permutation(values))


def _any(generator: np.random.Generator) -> Colour:
    return tuple(int(value) for value in generator.integers(0, 256, 3))


PALETTES: tuple[Palette, ...] = (_black_or_white, _grey, _saturated, _any)
