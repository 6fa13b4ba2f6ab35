"""Zips of stored members and .npy headers, with bytes that depend on the content alone.

numpy's own `savez` writes the time, so equal arrays do not give equal files.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from auravae_cli.dtypes import Array
from auravae_cli.errors import LatentFileError
from auravae_cli.safefile import Buffer

_DATE, _TIME = (1 << 5) | 1, 0  # 1980-01-01, the first that a zip can say
_LIMIT = 0xFFFFFFFF
_VERSION = 20
Piece = bytes | memoryview


def npy_header(array: Array) -> bytes:
    """What stands before a C-contiguous array's bytes in a .npy file."""
    return _npy_header(array.dtype.str, array.shape)


def npz_pieces(arrays: Mapping[str, Array]) -> list[Piece]:
    """An uncompressed .npz file as `numpy.load` reads it, in pieces. Raises LatentFileError."""
    pieces: list[Piece] = []
    central: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        member, header = f"{name}.npy".encode(), npy_header(array)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        size = len(header) + len(content)
        check = zlib.crc32(content, zlib.crc32(header))
        if offset + size > _LIMIT // 2:
            raise LatentFileError(f"{size} bytes are too many for a .npz file")
        common = struct.pack(
            "<HHHHHIIIHH", _VERSION, 0, 0, _TIME, _DATE, check, size, size, len(member), 0
        )
        local = b"PK\3\4" + common + member + header
        pieces += [local, content]
        central.append(
            b"PK\1\2"
            + struct.pack("<H", _VERSION)
            + common
            + struct.pack("<HHHII", 0, 0, 0, 0, offset)
            + member
        )
        offset += len(local) + len(content)
    directory = b"".join(central)
    end = struct.pack("<HHHHIIH", 0, 0, len(central), len(central), len(directory), offset, 0)
    return [*pieces, directory, b"PK\5\6" + end]


def read_npy(content: Buffer) -> Array:
    """The array of a .npy file. Raises LatentFileError."""
    try:
        array: Array = np.lib.format.read_array(io.BytesIO(bytes(content)), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, TypeError, SyntaxError) as error:
        raise LatentFileError(f"no .npy file of numbers, or a damaged one: {error}") from error
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def read_npz(content: Buffer) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises LatentFileError."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    arrays[name.removesuffix(".npy")] = read_npy(archive.read(name))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as error:
        raise LatentFileError(f"no .npz file, or a damaged one: {error}") from error
    except (ValueError, RuntimeError, KeyError, struct.error) as error:  # encrypted, or nonsense
        raise LatentFileError(f"a damaged .npz file: {error}") from error
    return arrays


def text_array(text: str) -> Array:
    """Text as an array that needs no pickle: its UTF-8 bytes."""
    return np.frombuffer(text.encode(), np.uint8)


def array_text(array: Array | None) -> str | None:
    """The inverse; None where it is no such text."""
    if array is None or array.dtype != np.uint8:
        return None
    try:
        return array.tobytes().decode()
    except UnicodeDecodeError:
        return None


@lru_cache(256)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()
