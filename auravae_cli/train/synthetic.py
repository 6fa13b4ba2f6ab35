"""Text and line art, drawn at random: what photographs lack, and a model would smear."""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from auravae_cli.images.read import Pixels

Colour = tuple[int, ...]


def drawn(generator: np.random.Generator, side: int) -> Pixels:
    """A picture of letters, lines and shapes: uint8 [side, side, 3]."""
    paper, ink = _colours(generator)
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    if generator.random() < 0.6:
        _write(draw, generator, side, ink)
    else:
        for _ in range(int(generator.integers(2, 9))):
            _shape(draw, generator, side, ink if generator.random() < 0.6 else _colour(generator))
    return np.asarray(image)


def _write(
    draw: ImageDraw.ImageDraw, generator: np.random.Generator, side: int, ink: Colour
) -> None:
    """Lines of random words, cut off by the border."""
    font_size = float(generator.integers(8, 33))
    font = ImageFont.load_default(size=font_size)
    letters = np.array(list(string.ascii_letters + string.digits + ".,:;!?-()&%"))
    y = float(generator.integers(-8, 8))
    while y < side:
        words = [
            "".join(generator.choice(letters, int(generator.integers(1, 9))))
            for _ in range(max(2, int(side / font_size)))
        ]
        draw.text((float(generator.integers(-16, 8)), y), " ".join(words), fill=ink, font=font)
        y += font_size * 1.3


def _shape(
    draw: ImageDraw.ImageDraw, generator: np.random.Generator, side: int, ink: Colour
) -> None:
    x0, x1, y0, y1 = (float(v) for v in generator.uniform(-0.1 * side, 1.1 * side, 4))
    width = int(generator.integers(1, 6))
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    match generator.integers(5):
        case 0 | 1:
            draw.line((x0, y0, x1, y1), fill=ink, width=width)
        case 2:
            draw.rectangle(box, outline=ink, width=width)
        case 3:
            draw.ellipse(box, outline=ink, width=width)
        case _:
            draw.ellipse(box, fill=ink)


def _colours(generator: np.random.Generator) -> tuple[Colour, Colour]:
    """Paper and ink: black on white or the reverse half of the time, else any two."""
    black, white = (0, 0, 0), (255, 255, 255)
    match generator.integers(4):
        case 0:
            return white, black
        case 1:
            return black, white
        case _:
            return _colour(generator), _colour(generator)


def _colour(generator: np.random.Generator) -> Colour:
    return tuple(int(value) for value in generator.integers(0, 256, 3))
