"""Make the pictures under samples/ from the photographs that scikit-image 0.26.0 ships.

The source folder is `skimage/data` of the unpacked wheel:

    pip download --no-deps scikit-image==0.26.0
    unzip scikit_image-0.26.0-*.whl 'skimage/data/*'
    python scripts/make_samples.py skimage/data

Only photographs whose docstring in `skimage/data/_fetchers.py` says CC0 or public domain are used;
samples/SOURCES.md lists them. With the same Pillow, a second run writes the same bytes.
"""

from __future__ import annotations

import argparse
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

LUMA = np.array([0.299, 0.587, 0.114])
LANCZOS = Image.Resampling.LANCZOS


def load(path: Path) -> Image.Image:
    """Read a photograph as sRGB or grey, and drop all that is not pixels (EXIF, profile, notes)."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), inPlace=True)
        return Image.fromarray(np.asarray(image))


def shrink_float(image: Image.Image, size: tuple[int, int]) -> NDArray[np.float64]:
    """Average areas of an RGB picture without rounding: height x width x 3, from 0 to 1."""
    bands = [band.convert("F").resize(size, Image.Resampling.BOX) for band in image.split()]
    return np.stack([np.asarray(band, np.float64) for band in bands], axis=-1) / 255


def chunk(kind: bytes, body: bytes) -> bytes:
    """Frame one PNG chunk: length, kind, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(pixels: NDArray[np.float64]) -> bytes:
    """Encode 0-to-1 pixels (one or three channels) as a 16-bit PNG, every row with filter Up."""
    height, width, channels = pixels.shape
    samples = np.rint(pixels.clip(0, 1) * 65535).astype(">u2")
    rows = samples.reshape(height, width * channels).view(np.uint8)
    filtered = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # uint8: wraps as PNG asks
    lines = np.insert(filtered, 0, 2, axis=1)  # 2 is the number of filter Up
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def feathered_ellipse(size: tuple[int, int]) -> Image.Image:
    """Draw an alpha channel: opaque inside, a soft edge, transparent corners."""
    width, height = size
    x = ((np.arange(width) + 0.5) / width - 0.5) / 0.41
    y = ((np.arange(height) + 0.5) / height - 0.5) / 0.48
    radius = np.hypot(x[None, :], y[:, None])
    ramp = ((1.03 - radius) / 0.2).clip(0, 1)
    return Image.fromarray(np.rint(255 * ramp * ramp * (3 - 2 * ramp)).astype(np.uint8))


def make_samples(source: Path, output: Path) -> None:
    """Write every sample picture."""
    output.mkdir(parents=True, exist_ok=True)

    astronaut = load(source / "astronaut.png").resize((384, 384), LANCZOS)
    astronaut.save(output / "astronaut.jpg", quality=90)

    coffee = load(source / "coffee.png")
    coffee.resize((399, 267), LANCZOS).save(output / "coffee.jpg", quality=90)
    cup = coffee.resize((160, 128), LANCZOS, box=(28, 0, 528, 400))
    cup.putalpha(feathered_ellipse(cup.size))
    cup.save(output / "coffee_alpha.png", optimize=True)

    # Orientation 6: viewers turn the picture clockwise, so it is stored turned the other way.
    chelsea = load(source / "chelsea.png").crop((108, 0, 348, 300))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = chelsea.transpose(Image.Transpose.ROTATE_90)
    turned.save(output / "chelsea_exif6.jpg", quality=90, exif=exif)

    rocket = load(source / "rocket.jpg").resize((480, 320), LANCZOS)
    rocket.save(output / "rocket.webp", quality=85, method=6)

    camera = load(source / "camera.png").resize((208, 208), LANCZOS)
    camera.save(output / "camera_grey.png", optimize=True)

    retina = shrink_float(load(source / "retina.jpg"), (144, 144))
    (output / "retina_16bit.png").write_bytes(png16((retina @ LUMA)[:, :, None]))

    hubble = load(source / "hubble_deep_field.jpg").crop((80, 16, 920, 856))
    (output / "hubble_16bit_rgb.png").write_bytes(png16(shrink_float(hubble, (120, 120))))


def main() -> None:
    """Parse the command line and write the pictures."""
    parser = argparse.ArgumentParser(description="Make the sample pictures.")
    parser.add_argument("source", type=Path, metavar="SKIMAGE_DATA_DIR")
    parser.add_argument("--output", type=Path, default=Path("samples"))
    arguments = parser.parse_args()
    make_samples(arguments.source, arguments.output)


if __name__ == "__main__":
    main()
