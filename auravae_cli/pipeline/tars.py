"""Tars, plain or compressed, read once from start to end; none that is damaged passes for whole."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from tarfile import EOFHeaderError, HeaderError, ReadError, TarFile  # type: ignore[attr-defined]
from typing import Any, Protocol, Self, cast

from auravae_cli.pipeline.sources import is_wanted

# What reading a damaged tar raises: the module lets errors of its own helpers through.
DAMAGES = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)
_GZIP = b"\x1f\x8b"


class Readable(Protocol):
    """What a tar is read from."""

    def read(self, size: int = -1, /) -> bytes: ...


def read_members(file: Readable) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a tar's pictures and their companions, in order.

    Others, hidden ones and links are passed over. Raises one of `DAMAGES` where the tar is damaged
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
