"""Read or map the bytes of a file, and wrap bytes as a file for libraries that need one."""

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
# POSIX: opening a pipe does not wait for a writer. Windows: no translation of line ends.
_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MOST_READ = 1 << 20  # bytes up to which a file is read; larger ones are mapped
_PIECE = 1 << 20
_NO_MAPS = (errno.ENODEV, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EACCES, errno.EPERM)


def view_of(content: Buffer) -> memoryview:
    """Return the bytes of a file as a view, whose slices are not copies."""
    return memoryview(content) if isinstance(content, bytes | memoryview) else content.data


def read_within(file: Any, limit: Limit, error: type[AuraVaeError]) -> bytes:
    """Read an open file, or a stream to its end. Raises ``error`` if it is too large."""
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
    """Read a file. Raises ``error`` if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            return read_within(file, limit, error)
    except (OSError, ValueError) as reason:
        raise _unreadable(reason, error) from reason


def map_file(path: Path, error: type[AuraVaeError]) -> bytes | memoryview:
    """Return a file's content, like `read_or_map`, by its name. Raises ``error`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return read_or_map(file)
    except (OSError, ValueError) as reason:
        raise _unreadable(reason, error) from reason


def _unreadable(reason: Exception, error: type[AuraVaeError]) -> AuraVaeError:
    return error(f"cannot be read: {getattr(reason, 'strerror', None) or reason}")


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. Raises OSError, without waiting, for a pipe, a device or a folder."""
    descriptor = os.open(path, os.O_RDONLY | _NO_WAITING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no file, but a folder, pipe or device")
    return os.fdopen(descriptor, "rb")


def read_or_map(file: Any) -> bytes | memoryview:
    """Return all of an open file. A small one is read; a large one is mapped, which keeps a descriptor open.

    A pipe cannot be mapped and is read to its end. Raises OSError or ValueError.
    """
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size <= MOST_READ:
        content: bytes = file.read()
        return content
    return map_or_read(file)


def map_or_read(file: Any) -> memoryview:
    """Return all of an open file that is not empty, mapped where the file system can. Raises OSError."""
    try:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        if error.errno not in _NO_MAPS:
            raise
    file.seek(0)
    return memoryview(file.read())


class BytesFile:
    """Bytes, or a memory map, as a file: the few methods that tarfile, gzip and zipfile use."""

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
