"""The bytes of a file, read or mapped; and bytes as a file, to be read by libraries that want one."""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from auravae_cli.errors import AuraVaeError
from auravae_cli.files.limits import Limit

if TYPE_CHECKING:
    import numpy as np

Buffer: TypeAlias = "bytes | memoryview | np.memmap[Any, Any]"
# POSIX: a pipe opens without a writer. Windows: bytes are bytes.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MOST_READ = 1 << 20  # bytes of a file that is read; of larger ones only what is asked for
_PIECE = 1 << 20


def read_within(file: Any, limit: Limit, error: type[AuraVaeError]) -> bytes:
    """All of an open file, or of a stream to its end. Raises ``error`` where that is too much."""
    with suppress(io.UnsupportedOperation):  # a stream in memory has no descriptor
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            limit.check(status.st_size, error)
            content: bytes = file.read()
            return content
    pieces, size = [], 0
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        limit.check(size, error)
    return b"".join(pieces)


def read_file(path: Path, limit: Limit, error: type[AuraVaeError]) -> bytes:
    """All of a file. Raises ``error`` where it cannot be read, or is too large."""
    try:
        with path.open("rb") as file:
            return read_within(file, limit, error)
    except (OSError, ValueError) as reason:
        told = getattr(reason, "strerror", None) or reason
        raise error(f"cannot be read: {told}") from reason


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. OSError, at once, where it is a pipe, a device or a folder."""
    descriptor = os.open(path, os.O_RDONLY | _NO_WAITING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no file, but a folder, pipe or device")
    return os.fdopen(descriptor, "rb")


def read_or_map(file: Any) -> bytes | memoryview:
    """All of an open file: a small one is read, a large one mapped, which keeps a descriptor open.

    A pipe has no map: it is read to its end. OSError or ValueError where that fails.
    """
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size <= MOST_READ:
        content: bytes = file.read()
        return content
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class BytesFile:
    """Bytes, or a memory map, as a file: the little of it that tarfile, gzip and zipfile use."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._content, self._position = content, 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self._content) if size < 0 else self._position + size
        part = bytes(self._content[self._position : end])
        self._position += len(part)
        return part

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        position = (0, self._position, len(self._content))[whence] + offset
        if position < 0:
            raise OSError("before the start")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position
