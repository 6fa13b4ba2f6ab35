"""Draw docs/flip.webp, the picture at the head of the README.

    python scripts/make_readme_picture.py [--model small] [--output docs/flip.webp]

A photograph, its reconstruction, and what the decoder makes of the flipped latent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from auravae_cli import load_codec, psnr
from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.contact_sheet import contact_sheet
from auravae_cli.images.read import read_image
from auravae_cli.images.write import picture_bytes

PHOTO = Path(__file__).parents[1] / "samples" / "coffee.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="small")
    parser.add_argument("--output", type=Path, default=Path("docs/flip.webp"))
    options = parser.parse_args()
    codec = load_codec(options.model)
    original = read_image(PHOTO.read_bytes()).pixels
    latent = codec.encode_image(PHOTO)
    decoded, mirrored = (codec.decode_latent(one) for one in (latent, latent.flip("h")))
    cells = [
        ("the photograph", original),
        (f"encoded and decoded, {psnr(decoded, original):.1f} dB", decoded),
        ("the latent flipped, then decoded", mirrored),
    ]
    write_atomically(
        options.output, picture_bytes(contact_sheet(cells, columns=3), ".webp", quality=80)
    )


if __name__ == "__main__":
    main()
