"""Damaged pictures: how many are accepted that the decoder of their format refuses? Must be none.

    python benchmarks/fuzz_pictures.py [--count 200] [--seed 0]

Every file is damaged COUNT times: a byte changed, a piece cut out, or the end cut off. The verdict is
that of the decoder itself, asked without this project. Needs the extra ``pictures``. Exit code 1 where
one was accepted wrongly.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import warnings
from collections.abc import Callable

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.read import read_image

Decode = Callable[..., object]


def by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def by_libpng(data: bytes) -> None:
    imagecodecs.png_decode(data)


def by_tifffile(data: bytes) -> None:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        file.pages[0].asarray()


def by_libheif(data: bytes) -> None:
    np.asarray(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False))


def pillow_file(values: np.ndarray, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff_file(values: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def heic_file(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(values)).save(buffer, quality=90)
    return buffer.getvalue()


def files() -> dict[str, tuple[bytes, Decode]]:
    """A file of each format and kind, and what decodes it."""
    y, x = np.mgrid[:48, :64]
    soft = np.stack([x * 4, y * 5, (x + y) * 2], axis=-1).astype(np.uint8)
    deep = soft.astype(np.uint16) * 257
    found: dict[str, tuple[bytes, Decode]] = {
        name: (pillow_file(soft, name), by_pillow)
        for name in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "TGA")
    }
    found["PNG, by libpng"] = (found["PNG"][0], by_libpng)
    found["QOI"] = (pillow_file(soft, "QOI"), by_pillow)
    found["PNG, 16 bits grey"] = (pillow_file(deep[..., 0], "PNG"), by_pillow)
    found["PNG, 16 bits RGB"] = (bytes(imagecodecs.png_encode(deep)), by_libpng)
    found["PNG, palette"] = (
        pillow_file(np.asarray(Image.fromarray(soft).quantize(16)), "PNG"),
        by_pillow,
    )
    found["TIFF, LZW"] = (pillow_file(soft, "TIFF", compression="tiff_lzw"), by_pillow)
    for compression in (None, "zlib", "lzw", "zstd"):
        data = tiff_file(deep, photometric="rgb", compression=compression)
        found[f"TIFF, 16 bits RGB, {compression}"] = (data, by_tifffile)
    floats = tiff_file((deep / 65535).astype(np.float32), photometric="rgb", compression="zlib")
    found["TIFF, float"] = (floats, by_tifffile)
    found["JPEG 2000, 16 bits"] = (
        bytes(imagecodecs.jpeg2k_encode(deep, level=0, reversible=True)),
        imagecodecs.jpeg2k_decode,
    )
    found["AVIF, 10 bits"] = (
        bytes(imagecodecs.avif_encode(deep >> 6, bitspersample=10, level=90)),
        imagecodecs.avif_decode,
    )
    found["JPEG, 12 bits"] = (
        bytes(imagecodecs.jpeg8_encode(deep >> 4, bitspersample=12, level=90)),
        imagecodecs.jpeg8_decode,
    )
    for name, values in (("8", soft), ("16", deep)):
        for is_lossless in (True, False):
            data = bytes(imagecodecs.jpegxl_encode(values, lossless=is_lossless))
            kind = "lossless" if is_lossless else "lossy"
            found[f"JPEG XL, {name} bits, {kind}"] = (data, imagecodecs.jpegxl_decode)
    found["HEIC"] = (heic_file(soft), by_libheif)
    return found


def damaged(data: bytes, dice: np.random.Generator) -> bytes:
    """The same file with a byte changed, a piece cut out, or the end cut off."""
    place = int(dice.integers(len(data)))
    way = dice.integers(10)
    if way < 7:
        return data[:place] + bytes([data[place] ^ int(dice.integers(1, 256))]) + data[place + 1 :]
    return data[:place] + (data[place + int(dice.integers(1, 40)) :] if way < 9 else b"")


def is_refused(decode: Decode, data: bytes) -> bool:
    try:
        decode(data)
    except Exception:
        return True
    return False


def is_accepted(data: bytes) -> bool:
    try:
        read_image(data, max_pixels=1_000_000)
    except InputImageError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    dice = np.random.default_rng(arguments.seed)
    inputs = wrong = 0
    print(f"{'file':34}{'inputs':>8}{'refused by decoder':>20}{'by us':>8}{'accepted wrongly':>18}")
    for name, (data, decode) in files().items():
        assert not is_refused(decode, data), name
        assert is_accepted(data), name
        refused = ours = bad = 0
        for _ in range(arguments.count):
            broken = damaged(data, dice)
            by_decoder, accepted = is_refused(decode, broken), is_accepted(broken)
            refused += by_decoder
            ours += not accepted
            bad += by_decoder and accepted
        print(f"{name:34}{arguments.count:8}{refused:20}{ours:8}{bad:18}", flush=True)
        inputs, wrong = inputs + arguments.count, wrong + bad
    print(f"{inputs} inputs, {wrong} accepted that the decoder refuses")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
