"""Write pixels to picture files, with a note of their provenance.

The note (EXIF ``UserComment``, or ``ImageDescription`` in TIFF) lets a later run see that a picture is
the finished result of the same latent, weights and settings.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from auravae_cli.errors import OutputError
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.images.read import Pixels
from auravae_cli.version import __version__

WRITABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_COMMENT_PREFIX = b"ASCII\0\0\0"


def picture_bytes(
    pixels: Pixels, suffix: str, *, quality: int = 95, provenance: dict[str, Any] | None = None
) -> bytes:
    """Return a picture file's bytes.

    Args:
        pixels: [H, W, 3], uint8; uint16 is written as PNG of 16 bits per channel.
        suffix: of the file's name; it determines the format.
        quality: 1 to 100, of JPEG and WebP. PNG and TIFF are lossless.
        provenance: what `read_provenance` returns.

    Raises:
        OutputError: an unknown format, or one that cannot hold the pixels.
    """
    file_format = WRITABLE.get(suffix.lower())
    if file_format is None:
        raise OutputError(
            f"cannot write {suffix or 'a name without suffix'!r}: expected one of {', '.join(WRITABLE)}"
        )
    exif = _exif(provenance, file_format)
    if pixels.dtype == np.uint16:
        if file_format != "PNG":
            raise OutputError(f"{suffix} cannot hold 16 bits a channel here: expected .png")
        return _png_16_bit(pixels, exif)
    by_format: dict[str, dict[str, Any]] = {
        "PNG": {"compress_level": 4},
        "JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
        "WEBP": {"quality": quality, "lossless": quality == 100},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, file_format, exif=exif, **by_format[file_format])
    except (OSError, ValueError) as error:  # beyond the format's own limits, such as WebP's 16383
        raise OutputError(
            f"{file_format} cannot hold a picture of {pixels.shape[1]} x {pixels.shape[0]} ({error}); write .png"
        ) from error
    return buffer.getvalue()


def read_provenance(path: Path) -> dict[str, Any] | None:
    """Return the note of `picture_bytes` in a file; None if it is not ours or not readable."""
    try:
        with Image.open(path, formats=tuple(set(WRITABLE.values()))) as image:
            exif = image.getexif()
            if image.format == "TIFF":
                comment = exif[ExifTags.Base.ImageDescription]
            else:
                comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        if isinstance(comment, str):
            comment = comment.encode()
        note = read_json(comment.removeprefix(_COMMENT_PREFIX))
    except Exception:  # a foreign file, damaged or not: None is never wrong
        return None
    return note if isinstance(note, dict) else None


def _exif(provenance: dict[str, Any] | None, file_format: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = f"auravae {__version__}"
    if provenance is not None:
        note = write_json(provenance, sort_keys=True)
        if file_format == "TIFF":  # Pillow cannot write a compressed TIFF with an EXIF directory
            exif[ExifTags.Base.ImageDescription] = note
        else:
            comment = _COMMENT_PREFIX + note.encode()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()


def _png_16_bit(pixels: Pixels, exif: bytes) -> bytes:
    """Return an RGB PNG of 16 bits per channel, which Pillow cannot write (PNG specification, third edition).

    Every row is filtered by "Up": the difference from the row above, modulo 256.
    """
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"eXIf", exif.removeprefix(b"Exif\0\0")),
        (b"IDAT", zlib.compress(filtered.tobytes(), 4)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
