"""The table of docs/pictures.md: what is read right, with which notice, or refused.

    python benchmarks/picture_table.py [--convert /usr/bin/convert]

Every file shows (200, 40, 30) on the left and white on the right, which is what must come out; linear
light and other primaries are declared of other numbers. ImageMagick is asked beside us, as an independent
decoder: what it gives is in the last column. Needs the extra ``pictures``.
"""

from __future__ import annotations

import argparse
import io
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.read import read_image

SHOWN = np.array([200, 40, 30])
Case = tuple[
    str, str, str, str, str, bytes, str
]  # format, depth, colours, alpha, way up, file, suffix


def values(bits: int, alpha: bool = False) -> np.ndarray:
    """[32, 48, 3 or 4] of so many bits, white to the right."""
    picture = np.broadcast_to(SHOWN / 255, (32, 48, 3)).copy()
    picture[:, 24:] = 1
    if alpha:
        picture = np.concatenate([picture, np.ones((32, 48, 1))], axis=-1)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.asarray(np.rint(picture * (2**bits - 1)), dtype)


def by_pillow(file_format: str, picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, file_format, **options)
    return buffer.getvalue()


def by_tifffile(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def by_libheif(picture: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    mode = "RGB;16" if picture.dtype == np.uint16 else "RGB"
    size = picture.shape[1::-1]
    made = pillow_heif.from_bytes(mode, size, picture.tobytes())
    made.save(buffer, quality=100, chroma=444, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def cases() -> Iterator[Case]:
    soft, deep, clear = values(8), values(16), values(8, alpha=True)
    lossless: dict[str, dict[str, object]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    lossless["AVIF"] = {"quality": 100, "subsampling": "4:4:4"}
    for name in (
        "PNG",
        "JPEG",
        "WEBP",
        "AVIF",
        "TIFF",
        "BMP",
        "GIF",
        "PPM",
        "JPEG2000",
        "TGA",
        "QOI",
    ):
        data = by_pillow(name, soft, **lossless.get(name, {}))
        yield name, "8", "sRGB", "", "", data, f".{name.lower()}"
    for name in ("PNG", "WEBP", "AVIF", "TIFF", "JPEG2000", "TGA", "QOI"):
        data = by_pillow(name, clear, **lossless.get(name, {}))
        yield name, "8", "sRGB", "opaque", "", data, f".{name.lower()}"
    for name in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        data = by_pillow(name, soft[::-1, ::-1], exif=turned(3), **lossless.get(name, {}))
        yield name, "8", "sRGB", "", "EXIF 3", data, f".{name.lower()}"
    yield "PNG", "16", "sRGB", "", "", bytes(imagecodecs.png_encode(deep)), ".png"
    yield "PPM", "16", "sRGB", "", "", b"P6\n48 32\n65535\n" + deep.astype(">u2").tobytes(), ".ppm"
    for plan in ("contig", "separate"):
        for packing in (None, "zlib", "lzw"):
            shaped = deep if plan == "contig" else deep.transpose(2, 0, 1)
            data = by_tifffile(shaped, photometric="rgb", planarconfig=plan, compression=packing)
            yield f"TIFF, {plan}, {packing or 'plain'}", "16", "sRGB", "", "", data, ".tiff"
    for alpha, kind in (("straight", "unassalpha"), ("associated", "assocalpha")):
        data = by_tifffile(values(16, alpha=True), photometric="rgb", extrasamples=[kind])
        yield "TIFF", "16", "sRGB", alpha, "", data, ".tiff"
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        data = by_tifffile((deep / 65535).astype(dtype), photometric="rgb")
        yield "TIFF", dtype.name, "sRGB", "", "", data, ".tiff"
    tags = [(274, 3, 1, 3, True)]
    data = by_tifffile(deep[::-1, ::-1], photometric="rgb", extratags=tags)
    yield "TIFF", "16", "sRGB", "", "tag 3", data, ".tiff"
    data = by_tifffile(
        deep[..., 0], photometric="cfa", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)]
    )
    yield "DNG", "16", "raw", "", "", data, ".dng"
    for bits in (10, 12, 16):
        data = bytes(
            imagecodecs.jpeg2k_encode(values(bits), bitspersample=bits, level=0, reversible=True)
        )
        yield "JPEG2000", str(bits), "sRGB", "", "", data, ".jp2"
    for bits in (10, 12):
        data = bytes(imagecodecs.avif_encode(values(bits), bitspersample=bits, level=100))
        yield "AVIF", str(bits), "sRGB", "", "", data, ".avif"
    data = bytes(imagecodecs.jpeg8_encode(values(12), bitspersample=12, level=100))
    yield "JPEG", "12", "sRGB", "", "", data, ".jpeg"
    yield (
        "JPEG XL",
        "8",
        "sRGB",
        "",
        "",
        bytes(imagecodecs.jpegxl_encode(soft, lossless=True)),
        ".jxl",
    )
    yield "HEIC", "8", "sRGB", "", "", by_libheif(soft), ".heic"
    yield "HEIC", "10", "sRGB", "", "", by_libheif(deep), ".heic"
    yield from declared()


def declared() -> Iterator[Case]:
    """(200, 40, 30) is declared as other numbers; the one that PQ or HLG stand for is not known."""
    light = ((SHOWN / 255 + 0.055) / 1.055) ** 2.4
    p3 = np.linalg.solve(P3_TO_SRGB, light)
    in_p3 = np.where(p3 <= 0.0031308, p3 * 12.92, 1.055 * p3 ** (1 / 2.4) - 0.055)
    for name, numbers, shown in (
        ("Display P3", (12, 13), in_p3),
        ("linear", (1, 8), light),
        ("PQ", (9, 16), light),
        ("HLG", (9, 18), light),
    ):
        picture = values(8)
        picture[:, :24] = np.rint(shown * 255)
        cicp = struct.pack(">I4s4B", 4, b"cICP", *numbers, 0, 1)
        png = by_pillow("PNG", picture)
        crc = struct.pack(">I", zlib.crc32(cicp[4:]))
        yield "PNG, cICP", "8", name, "", "", png[:33] + cicp + crc + png[33:], ".png"
        avif = by_pillow("AVIF", picture, quality=100, subsampling="4:4:4")
        place = avif.index(b"nclx") + 4
        avif = avif[:place] + struct.pack(">HH", *numbers) + avif[place + 4 :]
        yield "AVIF, nclx", "8", name, "", "", avif, ".avif"
        heic = by_libheif(picture, color_primaries=numbers[0], transfer_characteristics=numbers[1])
        yield "HEIC, nclx", "8", name, "", "", heic, ".heic"


P3_TO_SRGB = np.array(
    [
        [1.2249402, -0.2249402, 0.0],
        [-0.0420570, 1.0420570, 0.0],
        [-0.0196376, -0.0786361, 1.0982736],
    ]
)


def judged(pixels: np.ndarray) -> str:
    """Whether the left and the right show what they must, to 3 of 255."""
    if pixels.shape[:2] != (32, 48):
        return "another size"
    unit = np.iinfo(pixels.dtype).max / 255
    left, right = pixels[16, 8] / unit, pixels[16, 40] / unit
    is_right = abs(left - SHOWN).max() <= 3 and abs(right - 255).max() <= 3
    return "right" if is_right else f"wrong: {np.rint(left).astype(int).tolist()}"


def ours(data: bytes) -> tuple[str, str]:
    try:
        loaded = read_image(data)
    except InputImageError as error:
        return "refused", str(error).partition(":")[0]
    return judged(loaded.pixels), "; ".join(loaded.notices)


def by_imagemagick(convert: str, data: bytes, suffix: str) -> str:
    suffix = {".jpeg2000": ".jp2"}.get(suffix, suffix)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        command = [convert, file.name, "-auto-orient", "-background", "white", "-alpha", "remove"]
        command += ["-depth", "8", "ppm:-"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode or not done.stdout:
        return "does not read it"
    return judged(np.asarray(Image.open(io.BytesIO(done.stdout)).convert("RGB")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--convert", default=shutil.which("convert"))
    convert = parser.parse_args().convert
    print("| format | bits | colours | alpha | way up | here | notice or reason | ImageMagick |")
    print("|---|---|---|---|---|---|---|---|")
    for name, bits, colours, alpha, way, data, suffix in cases():
        verdict, said = ours(data)
        other = by_imagemagick(convert, data, suffix) if convert else "not asked"
        print(f"| {name} | {bits} | {colours} | {alpha} | {way} | {verdict} | {said} | {other} |")


if __name__ == "__main__":
    main()
