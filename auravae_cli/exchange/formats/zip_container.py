"""Zips of stored members and .npy headers, whose bytes depend only on the content.

numpy's own `savez` writes the time, so equal arrays do not give equal files.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import Buffer, BytesFile
from auravae_cli.latents.dtypes import Array

_DATE, _TIME = (1 << 5) | 1, 0  # 1980-01-01, the earliest date of a zip
_LIMIT = 0xFFFFFFFF
_VERSION = 20
_MOST = 10_000  # bytes of a .npy header, as in numpy
Piece = bytes | memoryview


def npy_header(array: Array) -> bytes:
    """Return the bytes before a C-contiguous array's data in a .npy file."""
    return _npy_header(array.dtype.str, array.shape)


def npz_pieces(arrays: Mapping[str, Array]) -> list[Piece]:
    """Return an uncompressed .npz file for `numpy.load`, in pieces. Raises LatentFileError."""
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
    """Return the array of a .npy file, as a view of its bytes. Raises LatentFileError."""
    try:
        wide = content[6:7] == b"\2"  # of the two versions, the second has a length of four bytes
        length = int.from_bytes(bytes(content[8 : 12 if wide else 10]), "little")
        dtype, shape, start = _parse_npy(
            bytes(content[: (12 if wide else 10) + min(length, _MOST)])
        )
        count = math.prod(shape)
        if len(content) - start < count * dtype.itemsize:
            raise ValueError(f"{len(content)} bytes cannot hold {list(shape)} of {dtype}")
        array: Array = np.frombuffer(content, dtype, count, start).reshape(shape)
    except Exception as error:  # numpy raises errors of every type on damaged headers
        raise LatentFileError(f"no .npy file of numbers, or a damaged one: {error}") from error
    return array.astype(dtype.newbyteorder("<"), copy=False)


@lru_cache(256)
def _parse_npy(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return dtype, shape and offset of the values. Raises ValueError if they cannot be read."""
    if not header.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("it does not begin as one")
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if is_fortran and len(shape) > 1:
        raise ValueError("columns first: save it with numpy.ascontiguousarray")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    return dtype, shape, file.tell()


class ZipMembers(Mapping[str, Buffer]):
    """The members of a zip by name; each is read, and its checksum verified, on demand.

    Raises LatentFileError.
    """

    def __init__(self, content: Buffer) -> None:
        self._content = content if isinstance(content, bytes | memoryview) else content.data
        with _damages():
            self._archive = zipfile.ZipFile(cast(Any, BytesFile(self._content)))
            self._members = {info.filename: info for info in self._archive.infolist()}

    def __getitem__(self, name: str) -> Buffer:
        member = self._members[name]
        with _damages():
            if member.compress_type == zipfile.ZIP_DEFLATED:
                FILE_BYTES.check(member.file_size, LatentFileError)
                with self._archive.open(member) as file:
                    return file.read(member.file_size)
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise LatentFileError(f"{name!r} is encrypted, or packed as numpy packs none")
            at = member.header_offset
            names = struct.unpack("<HH", bytes(self._content[at + 26 : at + 30]))
            start = at + 30 + sum(names)
            content = self._content[start : start + member.file_size]
            if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
                raise LatentFileError(f"a damaged zip: bad checksum of {name!r}")
        return content

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class Npz(Mapping[str, Array]):
    """The arrays of an .npz file by name, read on demand. Raises LatentFileError."""

    def __init__(self, content: Buffer) -> None:
        members = ZipMembers(content)
        self._members = members
        self._names = [name.removesuffix(".npy") for name in members if name[-4:] == ".npy"]

    def __getitem__(self, name: str) -> Array:
        return read_npy(self._members[f"{name}.npy"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _damages() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, zlib.error) as error:
        raise LatentFileError(f"no zip, or a damaged one: {error}") from error
    except (ValueError, RuntimeError, KeyError, struct.error) as error:  # encrypted, or nonsense
        raise LatentFileError(f"a damaged zip: {error}") from error


def text_array(text: str) -> Array:
    """Return text as an array that needs no pickle: its UTF-8 bytes."""
    return np.frombuffer(text.encode(), np.uint8)


def array_text(array: Array | None) -> str | None:
    """Return the text of such an array; None if it is not one."""
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
