"""Draw docs/comparison.webp: details at 200 %, as one model and another give them back.

    python scripts/make_comparison_sheet.py OLD NEW [--output docs/comparison.webp]

OLD and NEW are models by name or weights file. Details of the sample pictures (faces, fur, lettering,
saturated colours), and drawn material with seeds that training does not use; a row each: original, old,
new. Pixels are repeated, not smoothed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from auravae_cli import Codec, load_codec, psnr
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.contact_sheet import contact_sheet
from auravae_cli.images.read import Pixels, read_image, to_8_bit
from auravae_cli.images.write import picture_bytes
from auravae_cli.train.synthetic import drawn

SAMPLES = Path(__file__).parents[1] / "samples"
SIDE, SCALE = 128, 2
# Picture, and where in it, as shares of its height and width.
DETAILS = (
    ("face", "astronaut.jpg", 0.1, 0.35),
    ("badge, orange", "astronaut.jpg", 0.6, 0.55),
    ("fur, whiskers", "chelsea_exif6.jpg", 0.45, 0.4),
    ("cup", "coffee.jpg", 0.35, 0.4),
    ("rocket, sky", "rocket.webp", 0.3, 0.45),
    ("tripod, grass", "camera_grey.png", 0.45, 0.4),
)
DRAWN_SEEDS = (1_000_003, 1_000_005, 1_000_009, 1_000_011)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--output", type=Path, default=Path("docs/comparison.webp"))
    options = parser.parse_args()
    old, new = load_codec(options.old), load_codec(options.new)
    cells = []
    for name, picture, box in details():
        cells += [(name, enlarged(picture, box))]
        for label, codec in ((old.space.model, old), (new.space.model, new)):
            cells += [shown(label, codec, picture, box)]
    sheet = contact_sheet(cells, columns=3)
    write_atomically(options.output, picture_bytes(sheet, ".webp", quality=88))


def details() -> list[tuple[str, Pixels, tuple[int, int]]]:
    """Name, whole picture, and the row and column where its detail begins."""
    found = []
    for name, file, down, across in DETAILS:
        picture = to_8_bit(read_image((SAMPLES / file).read_bytes()).pixels)
        height, width = picture.shape[:2]
        corner = (int(down * (height - SIDE)), int(across * (width - SIDE)))
        found.append((name, picture, corner))
    plain = [("red, green, blue on white and black", stripes()), ("words, 8 to 16 px", words())]
    plain += [(f"drawn, seed {s}", drawn(np.random.default_rng(s), SIDE)) for s in DRAWN_SEEDS]
    return found + [(name, picture, (0, 0)) for name, picture in plain]


def stripes() -> Pixels:
    """Frames and lines of saturated colours, 1 to 6 pixels wide, and greys."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, SIDE // 2, SIDE, SIDE), fill="black")
    for number, colour in enumerate(("red", "lime", "blue", "yellow", "magenta", "cyan")):
        x, width = 4 + 21 * number, 1 + number
        draw.rectangle((x, 8, x + 14, 40), outline=colour, width=width)
        draw.line((x, 60, x + 14, 100), fill=colour, width=width)
    for number in range(6):
        x = 4 + 21 * number
        draw.rectangle((x, 104, x + 14, 122), fill=(40 * number + 20,) * 3)
    return np.asarray(image)


def words() -> Pixels:
    """Lettering of several sizes."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw, y = ImageDraw.Draw(image), 4
    for size, ink in ((8, "black"), (10, "black"), (12, "red"), (14, "#555"), (16, "blue")):
        font = ImageFont.load_default(size=size)
        draw.text((4, y), f"{size} px: Hamburgefonts 1234", fill=ink, font=font)
        y += round(1.6 * size)
    return np.asarray(image)


def shown(label: str, codec: Codec, picture: Pixels, corner: tuple[int, int]) -> tuple[str, Pixels]:
    """The detail of the whole picture's reconstruction, with its own PSNR."""
    decoded = codec.decode_latent(codec.encode_image(picture))
    part, wanted = (cut(pixels, corner) for pixels in (decoded, picture))
    return f"{label}  {psnr(part, wanted):.2f} dB", enlarged(decoded, corner)


def cut(picture: Pixels, corner: tuple[int, int]) -> Pixels:
    """The detail that begins at a corner."""
    top, left = corner
    return picture[top : top + SIDE, left : left + SIDE]


def enlarged(picture: Pixels, corner: tuple[int, int]) -> Pixels:
    """The detail at 200 %."""
    return cut(picture, corner).repeat(SCALE, 0).repeat(SCALE, 1)


if __name__ == "__main__":
    main()
