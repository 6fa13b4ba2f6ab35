"""Tars, plain or compressed, read once from start to end; none that is damaged passes for whole."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from tarfile import EOFHeaderError, HeaderError, ReadError, TarFile  # type: ignore[attr-defined]
from typing import Any, Protocol, Self, cast

from auravae_cli.safefile import Buffer

# What reading a damaged tar raises: the module lets errors of its own helpers through.
DAMAGES = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)
_GZIP = b"\x1f\x8b"


class Readable(Protocol):
    """What a tar is read from."""

    def read(self, size: int = -1, /) -> bytes: ...


class ByteReader:
    """Bytes, or a memory map, to be read from start to end."""

    def __init__(self, content: Buffer) -> None:
        self._content, self._position = content, 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self._content) if size < 0 else self._position + size
        part = bytes(self._content[self._position : end])
        self._position += len(part)
        return part


def read_members(file: Readable, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a tar's members that are wanted by their names, in order.

    Hidden ones and links are passed over. Raises one of `DAMAGES` where the tar is damaged
    or lacks its end.
    """
    start = _Started(file)
    plain: Any = gzip.GzipFile(fileobj=cast(Any, start)) if start.first == _GZIP else start
    archive: Any
    with tarfile.open(fileobj=plain, mode="r|*", tarinfo=_Header) as archive:
        for member in archive:
            name = member.name
            if member.isfile() and is_wanted(name) and not name.rpartition("/")[2].startswith("."):
                yield name, archive.extractfile(member).read()
            archive.members.clear()  # or it remembers every one


class _Header(tarfile.TarInfo):
    """A member's header. `tarfile` takes one that is cut off, or none, for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:  # the mark of the end
            raise
        except HeaderError as error:
            raise ReadError(str(error)) from error


class _Started:
    """A file whose first two bytes are known before they are read."""

    def __init__(self, file: Readable) -> None:
        self._file, self.first = file, file.read(2)
        self._waiting = self.first

    def read(self, size: int = -1, /) -> bytes:
        start, self._waiting = self._waiting, b""
        return start + self._file.read(size - len(start) if size >= 0 else size)
