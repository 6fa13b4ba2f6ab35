"""Draw docs/small.webp: pictures as the embedded models give them back, to be looked at.

    python scripts/make_model_sheet.py [--output docs/small.webp]

Sample pictures, lettering and line art (drawn here, with a seed that training does not use);
each as original, `linear`, `small`, and the difference of the last, four times amplified.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from auravae_cli import load_codec, psnr
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.contact_sheet import contact_sheet, difference
from auravae_cli.images.read import Pixels, read_image
from auravae_cli.images.write import picture_bytes
from auravae_cli.train.synthetic import drawn

SAMPLES = Path(__file__).parents[1] / "samples"
PHOTOS = ("astronaut.jpg", "camera_grey.png", "chelsea_exif6.jpg", "coffee.jpg", "rocket.webp")
SIDE = 256
DRAWN_SEEDS = (1, 5, 9)  # lettering, lines, shapes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/small.webp"))
    options = parser.parse_args()
    linear, small = load_codec("linear"), load_codec("small")
    cells = []
    for name, picture in pictures():
        by_linear, by_small = (c.decode_latent(c.encode_image(picture)) for c in (linear, small))
        cells += [
            (name, picture),
            (f"linear  {psnr(by_linear, picture):.2f} dB", by_linear),
            (f"small  {psnr(by_small, picture):.2f} dB", by_small),
            ("difference of small, x 4", difference(by_small, picture)),
        ]
    write_atomically(
        options.output, picture_bytes(contact_sheet(cells, columns=4), ".webp", quality=85)
    )


def pictures() -> list[tuple[str, Pixels]]:
    """Names and pictures, uint8 [256, 256, 3] at most."""
    found = []
    for name in PHOTOS:
        image = Image.fromarray(read_image((SAMPLES / name).read_bytes()).pixels)
        left, top = (max(0, (side - SIDE) // 2) for side in image.size)
        box = (left, top, min(left + SIDE, image.width), min(top + SIDE, image.height))
        found.append((name, np.asarray(image.crop(box))))
    found += [(f"drawn, seed {s}", drawn(np.random.default_rng(s), SIDE)) for s in DRAWN_SEEDS]
    return found


if __name__ == "__main__":
    main()
