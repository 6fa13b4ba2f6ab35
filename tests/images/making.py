"""Picture files, byte by byte, that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile
from PIL import ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}


def steps(dtype: Any = np.uint16) -> np.ndarray:
    """RGB [16, 16, 3]: black on the left; on the right what is at (2, -3)."""
    grey = np.zeros((16, 16), np.uint16)
    grey[:, 8:] = 40000
    rgb = np.stack([grey, grey // 2, grey // 4], axis=-1)
    return rgb if dtype == np.uint16 else (rgb >> 8).astype(dtype)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def packed_tiff(values: np.ndarray, bits: int, byte_order: str = "<") -> bytes:
    """[H, W, C] of 9 to 15 bits, without a gap between the samples of a row."""
    height, width, count = values.shape
    rows = []
    for row in values.reshape(height, -1):
        spelt = "".join(f"{value:0{bits}b}" for value in row)
        spelt += "0" * (-len(spelt) % 8)
        rows.append(int(spelt, 2).to_bytes(len(spelt) // 8, "big"))
    content = b"".join(rows)
    end = 8 + 2 + 12 * 9 + 4
    sizes = struct.pack(f"{byte_order}{count}H", *[bits] * count)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, count, end if count > 2 else None),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if count == 3 else 1),
        (273, 4, 1, end + len(sizes)),
        (277, 3, 1, count),
        (278, 4, 1, height),
        (279, 4, 1, len(content)),
    ]
    out = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(f"{byte_order}IH", 8, 9)
    for tag, kind, number, value in tags:
        field = sizes.ljust(4, b"\0") if value is None else struct.pack(f"{byte_order}I", value)
        if value is not None and kind == 3 and tag != 258:
            field = struct.pack(f"{byte_order}HH", value, 0)
        out += struct.pack(f"{byte_order}HHI", tag, kind, number) + field
    return out + bytes(4) + sizes + content


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """[H, W, C], uint8 or uint16; ``chunks`` stand before the pixels."""
    height, width, count = values.shape
    bits, kind = 8 * values.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[count]
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in every
    )


def profile(curve: bytes | None = None) -> bytes:
    """Display P3; with ``curve`` in place of sRGB's."""
    content = bytearray(SRGB)
    for number in range(struct.unpack(">I", content[128:132])[0]):
        name, start, size = struct.unpack(">4sII", content[132 + 12 * number : 144 + 12 * number])
        if name in _P3:
            xyz = (round(value * 65536) for value in _P3[name])
            content[start + 8 : start + 20] = struct.pack(">3i", *xyz)
        if curve is not None and name in (b"rTRC", b"gTRC", b"bTRC"):
            content[start : start + size] = curve.ljust(size, b"\0")[:size]
    return bytes(content)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey: a white point and a curve (ICC.1:2010, 8.5)."""
    xyz = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    name = b"desc" + struct.pack(">II", 0, 5) + b"grey\0" + bytes(78)
    name += bytes(-len(name) % 4)
    tags, place, table = (b"desc", name), 128 + 4 + 3 * 12, b""
    bodies = b""
    for key, body in ((b"wtpt", xyz), (b"kTRC", curve), tags):
        table += key + struct.pack(">II", place + len(bodies), len(body))
        bodies += body
    head = bytearray(128)
    struct.pack_into(">I", head, 0, place + len(bodies))
    struct.pack_into(">I", head, 8, 0x02100000)
    head[12:24], head[36:40] = b"mntrGRAYXYZ ", b"acsp"
    struct.pack_into(">3i", head, 68, 63190, 65536, 54061)
    return bytes(head) + struct.pack(">I", 3) + table + bodies
