"""The bytes of a file, read or mapped; and bytes as a file, to be read by libraries that want one."""

from __future__ import annotations

import mmap
import os
import stat
from typing import Any

MOST_READ = 1 << 20  # bytes of a file that is read; of larger ones only what is asked for


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
