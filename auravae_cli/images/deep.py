"""Read samples of more than 8 bits from what Pillow opens, since Pillow itself keeps only 8 of them.

PNG and PPM need no other reader; JPEG 2000 and AVIF need imagecodecs.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from auravae_cli.errors import InputImageError
from auravae_cli.images import avif, jpeg2000, png
from auravae_cli.images.colour import Colours
from auravae_cli.images.extra import INSTALL, imagecodecs, required
from auravae_cli.images.samples import Samples, levels, widened


def deep_samples(image: Image.Image, data: bytes | None, notices: list[str]) -> Samples | None:
    """Return the samples of a picture that is deeper than 8 bits; None if it is not.

    ``image`` must not be loaded yet: loading forgets how the file stores its samples. If ``data``, the
    file's bytes, is None, only the contents of ``image`` are available.
    """
    icc = image.info.get("icc_profile") or None
    if data is not None:
        read = {"PNG": _png, "PPM": _ppm, "JPEG2000": _jpeg2000, "AVIF": _avif}.get(
            image.format or ""
        )
        found = read(image, data, notices) if read else None
        if found is not None:
            return found
    if _raw_mode(image).startswith("CMYK;16"):
        notices.append("16-bit CMYK read at 8 bits")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image.load()  # a TIFF is turned upright as it loads
        return Samples(levels(np.asarray(image), notices)[..., None], Colours(icc=icc))
    return None


def _raw_mode(image: Image.Image) -> str:
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    modes = [str(t.args[0] if isinstance(t.args, tuple) else t.args) for t in tiles]
    return modes[0] if modes else ""


def _png(image: Image.Image, data: bytes, notices: list[str]) -> Samples | None:
    mode = _raw_mode(image)
    if ";16" not in mode:
        return None
    if mode.startswith("I"):
        values = np.asarray(image)[..., None].astype(np.uint16)
    elif mode.startswith("LA"):
        values = _grey_and_alpha(data)
    else:
        values = _both_bytes(image, data)
    clear = png.transparent_colour(data)
    if clear is not None and len(clear) == values.shape[2]:
        alpha = np.where((values == clear).all(axis=-1, keepdims=True), 0, 65535)
        values = np.concatenate([values, alpha.astype(np.uint16)], axis=-1)
    return Samples(values, png.colours(data, image.info.get("icc_profile")))


def _both_bytes(image: Image.Image, data: bytes) -> NDArray[np.uint16]:
    """Read both bytes of each sample: Pillow keeps the high byte, or with reversed byte order the low one."""
    values: NDArray[np.uint16] = np.asarray(image).astype(np.uint16)
    values <<= 8
    with Image.open(io.BytesIO(data), formats=("PNG",)) as swapped:
        assert isinstance(swapped, ImageFile.ImageFile)
        swapped.tile = [tile._replace(args=f"{_raw_mode(swapped)[:-1]}L") for tile in swapped.tile]
        values |= np.asarray(swapped)
    return values


def _grey_and_alpha(data: bytes) -> NDArray[np.uint16]:
    """Read four bytes per pixel, which are filtered like RGBA at 8 bits, as if they were that."""
    header = bytearray(data[12:29])
    header[12:14] = bytes((8, 6))
    patched = data[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with Image.open(io.BytesIO(patched), formats=("PNG",)) as image:
        return np.ascontiguousarray(np.asarray(image)).view(">u2").astype(np.uint16)


def _ppm(image: Image.Image, data: bytes, notices: list[str]) -> Samples | None:
    """Return Pillow's offset and largest value; the samples are two bytes each, or decimal numbers."""
    assert isinstance(image, ImageFile.ImageFile)
    decoder, _, offset, args = image.tile[0]
    if decoder not in ("ppm", "ppm_plain") or not isinstance(args, tuple) or args[-1] <= 255:
        return None
    top, channels = int(args[-1]), 3 if data[1:2] in b"36" else 1
    count = image.width * image.height * channels
    if decoder == "ppm":
        values = np.frombuffer(data, ">u2", count, offset)
    else:
        lines = (line.partition(b"#")[0] for line in data[offset:].splitlines())
        values = np.array(b" ".join(lines).split()[:count], dtype=np.int64)
        if values.size < count:
            raise ValueError("samples are missing")
    if values.max(initial=0) > top or values.min(initial=0) < 0:
        raise ValueError(f"a sample beyond the largest, {top}")
    wide = np.rint(values * (65535 / top)).astype(np.uint16)
    return Samples(wide.reshape(image.height, image.width, channels))


def _jpeg2000(image: Image.Image, data: bytes, notices: list[str]) -> Samples | None:
    bits = jpeg2000.depth(data)
    if bits <= 8:
        return None
    codecs = required("imagecodecs", f"a JPEG 2000 picture of {bits} bits a sample")
    if bits > 16 or jpeg2000.is_ycc(data):
        raise InputImageError(
            f"a JPEG 2000 picture of {bits} bits in sYCC or wider: save it as PNG"
        )
    values = codecs.jpeg2k_decode(data)
    return Samples(widened(_in_three(values), bits), jpeg2000.colours(data))


def _avif(image: Image.Image, data: bytes, notices: list[str]) -> Samples | None:
    bits = avif.depth(data)
    if bits <= 8:
        return None
    codecs = imagecodecs()
    if codecs is None:
        notices.append(f"{bits} bits read at 8; to read all, {INSTALL}")
        return None
    values = _in_three(codecs.avif_decode(data, index=0))
    return Samples(widened(values, bits), avif.colours(data))


def _in_three(values: NDArray[Any]) -> NDArray[Any]:
    return values[..., None] if values.ndim == 2 else values
