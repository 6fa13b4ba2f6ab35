"""A contact sheet: captioned pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from auravae_cli.images.read import Pixels, to_8_bit

GAP = 12
CAPTION_HEIGHT = 24
LONGEST_SIDE = 640
DIFFERENCE_GAIN = 4


def difference(image: Pixels, reference: Pixels) -> Pixels:
    """Return the signed difference, amplified four times around middle grey: uint8 [H, W, 3]."""
    signed = image.astype(np.int32) - reference.astype(np.int32)
    return np.clip(128 + DIFFERENCE_GAIN * signed, 0, 255).astype(np.uint8)


def contact_sheet(cells: Sequence[tuple[str, Pixels]], columns: int = 3) -> Pixels:
    """Return captioned pictures in rows, larger ones reduced to 640 pixels a side: uint8 [H, W, 3]."""
    images = [Image.fromarray(reduced(pixels)) for _, pixels in cells]
    font = ImageFont.load_default(size=14)
    width = max(*(image.width for image in images), 200) + GAP
    height = max(image.height for image in images) + CAPTION_HEIGHT + GAP
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (min(columns, len(cells)) * width + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, ((caption, _), image) in enumerate(zip(cells, images, strict=True)):
        x, y = GAP + index % columns * width, GAP + index // columns * height
        draw.text((x, y), caption, fill="black", font=font)
        sheet.paste(image, (x, y + CAPTION_HEIGHT))
    return np.asarray(sheet)


def reduced(pixels: Pixels) -> Pixels:
    """Return a picture of at most 640 pixels a side: uint8 or uint16 [H, W, 3] => uint8."""
    image = Image.fromarray(to_8_bit(pixels))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)
