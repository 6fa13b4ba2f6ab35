"""Tars, plain or compressed, read once from start to end; a damaged one is never taken for complete."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from tarfile import (  # type: ignore[attr-defined]
    BLOCKSIZE,
    REGTYPE,
    EOFHeaderError,
    HeaderError,
    ReadError,
    TarFile,
    TarInfo,
)
from typing import Any, Protocol, Self, cast

from auravae_cli.files.limits import TAR_HEADER_BYTES, Limit
from auravae_cli.files.mapping import Buffer, BytesFile

# The errors raised for damaged tars: the module passes on errors of its helpers.
DAMAGES = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)
_GZIP = b"\x1f\x8b"
_STEP = 1 << 20  # bytes skipped at once
_LONG_NUMBER = re.compile(rb"\d{300}")  # `tarfile` would search it once for every digit
_END, _NO_PREFIX = bytes(BLOCKSIZE), bytes(155)

# The template of `member_header`: a plain file without a name, of no bytes.
_EMPTY = tarfile.TarInfo()
_EMPTY.mode = 0o644
_TEMPLATE = _EMPTY.tobuf(tarfile.USTAR_FORMAT)
_SUM = sum(_TEMPLATE) - sum(_TEMPLATE[124:135]) - sum(_TEMPLATE[148:156]) + 8 * ord(" ")


def member_header(name: str, size: int) -> bytes:
    """Return the header of a member: a plain file without a time or an owner.

    The bytes equal those of `tarfile.TarInfo.tobuf`, and take a tenth of the time if a plain header can
    hold the name.
    """
    if not name.isascii() or len(name) > 100 or size >= 8**11:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, _EMPTY.mode
        return header.tobuf(tarfile.PAX_FORMAT, errors="surrogatepass")
    path, octal = name.encode(), b"%011o" % size
    checksum = _SUM + _sum_of(path + octal)
    return b"%s%s%s%s%06o\0%s" % (
        path.ljust(100, b"\0"),
        _TEMPLATE[100:124],
        octal,
        _TEMPLATE[135:148],
        checksum,
        _TEMPLATE[155:],
    )


class Readable(Protocol):
    """A source that a tar is read from, from start to end."""

    def read(self, size: int = -1, /) -> bytes: ...


def read_members(
    source: Readable | Buffer, limit_of: Callable[[str], Limit | None]
) -> Iterator[tuple[str, bytes | memoryview | str]]:
    """Yield the names and contents of a tar's members, in order; for one that is too large, a text with the reason.

    ``limit_of`` returns the limit of a member by its name, or None if the member is not wanted.
    Contents of a plain tar in memory are views of it. Hidden members and links are skipped.
    Raises one of `DAMAGES` if the tar is damaged or lacks its end.
    """
    content = None if hasattr(source, "read") else memoryview(cast(Any, source))
    if content is not None:
        plain: Any = BytesFile(content)
        is_packed = content[:2] == _GZIP
    else:
        plain = _Started(cast(Readable, source))
        is_packed = plain.first == _GZIP
    if is_packed:
        plain, content = gzip.GzipFile(fileobj=plain), None
    if content is not None:
        most = dict[
            Limit, int
        ]()  # looked up once: a tar of latents has four small members for each
        for name, size, start in (walk := _Plain(content)):
            if not name.rpartition("/")[2].startswith(".") and (limit := limit_of(name)):
                is_more = size > (most.get(limit) or most.setdefault(limit, limit.value))
                yield name, (is_more and limit.excess(size)) or content[start : start + size]
        if walk.ended:
            return
        content = content[walk.position :]
        plain = BytesFile(content)
    file = _Archive(plain if content is not None else _Forward(plain))
    archive: Any = tarfile.open(fileobj=cast(Any, file), mode="r:", tarinfo=_Header)  # noqa: SIM115 - closed below
    with archive:
        while (member := file.next_of(archive)) is not None:
            if archive.offset <= member.offset:
                raise ReadError("a header leads backwards")
            name, is_hidden = member.name, member.name.rpartition("/")[2].startswith(".")
            limit = limit_of(name) if member.isfile() and not is_hidden else None
            if limit is not None:
                yield name, limit.excess(member.size) or _content(archive, member, content)
            archive.members.clear()  # otherwise it remembers every one


def _content(archive: Any, member: TarInfo, content: memoryview | None) -> bytes | memoryview:
    if member.issparse():
        whole: bytes = archive.extractfile(member).read()
        return whole
    start, stop = member.offset_data, member.offset_data + member.size
    if content is None:
        archive.fileobj.seek(start)
    part = archive.fileobj.read(member.size) if content is None else content[start:stop]
    if len(part) != member.size:
        raise ReadError("unexpected end of data")
    return cast(bytes, part)


class _Plain:
    """The plain files at the start of a tar in memory: name, size, and where the content starts.

    `tarfile` takes ten times as long for a header. It reads on at ``position``, unless the tar ``ended``: all
    that is not plain, or damaged, is left to it.
    """

    def __init__(self, content: memoryview) -> None:
        self._content, self.position, self.ended = content, 0, False

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        content, most = self._content, len(self._content)
        while True:
            block = bytes(content[self.position : self.position + BLOCKSIZE])
            found = _plain_header(block)
            if found is None:
                self.ended = self.position > 0 and block == _END
                return
            name, size = found
            start = self.position + BLOCKSIZE
            if start + size > most:
                return
            self.position = start + -(-size // BLOCKSIZE) * BLOCKSIZE
            yield name, size, start


def _plain_header(block: bytes) -> tuple[str, int] | None:
    """Return the name and the size of a plain file with a short name; None for any other header."""
    if len(block) < BLOCKSIZE or block[156:157] != REGTYPE or block[345:500] != _NO_PREFIX:
        return None
    try:
        checksum, size = int(block[148:156].strip(b" \0"), 8), int(block[124:136].strip(b" \0"), 8)
        name = block[:100].partition(b"\0")[0].decode()
    except ValueError:
        return None
    total = _sum_of(block[:256]) + _sum_of(block[256:])
    is_sound = total - sum(block[148:156]) + 8 * ord(" ") == checksum
    return (name, size) if is_sound and size >= 0 else None


def _sum_of(content: bytes) -> int:
    """Return the sum of up to 256 bytes: the lower half of an Adler-32 is 1 more, as long as it is below 65,521."""
    return (zlib.adler32(content) & 0xFFFF) - 1


class _Archive:
    """The file that `tarfile` reads; headers cannot exceed the limit, whatever they claim."""

    def __init__(self, file: Any) -> None:
        self._file, self._most = file, TAR_HEADER_BYTES.value
        self._taken: int | None = 0  # bytes of headers; None while contents are read

    def next_of(self, archive: Any) -> TarInfo | None:
        """Return the next member of the archive that reads this file."""
        self._taken = 0
        member: TarInfo | None = archive.next()
        self._taken = None
        return member

    def read(self, size: int = -1, /) -> bytes:
        if self._taken is not None:
            self._taken += size
            if self._taken > self._most:
                raise ReadError(TAR_HEADER_BYTES.excess(self._taken))
        part: bytes = self._file.read(size)
        if size > BLOCKSIZE and self._taken is not None and _LONG_NUMBER.search(part):
            raise ReadError("a header with a number of hundreds of digits")
        return part

    def tell(self) -> int:
        place: int = self._file.tell()
        return place

    def seek(self, position: int) -> int:
        place: int = self._file.seek(position)
        return place


class _Forward:
    """A stream with a position, which seeks by reading, and never beyond the end of the stream.

    `tarfile` itself would continue beyond the end, to wherever a header says the next one is.
    """

    def __init__(self, file: Readable) -> None:
        self._file, self._position = file, 0

    def read(self, size: int = -1, /) -> bytes:
        part = self._file.read(size)
        self._position += len(part)
        return part

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise ReadError("a header leads backwards")
        while self._position < position and self.read(min(_STEP, position - self._position)):
            pass
        return self._position


class _Header(TarInfo):
    """A member's header. `tarfile` takes a truncated or missing one for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:  # the end marker
            raise
        except (HeaderError, IndexError, RecursionError) as error:  # also from headers of headers
            raise ReadError(str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse like `tarfile`, in a tenth of the time for plain files with short names."""
        if (plain := _plain_header(bytes(buf))) is None:
            return super().frombuf(buf, encoding, errors)
        header = cls(plain[0])
        header.size = plain[1]
        return header


class _Started:
    """A file whose first two bytes have been read ahead."""

    def __init__(self, file: Readable) -> None:
        self._file, self.first = file, file.read(2)
        self._waiting = self.first

    def read(self, size: int = -1, /) -> bytes:
        start, self._waiting = self._waiting, b""
        return start + self._file.read(size - len(start) if size >= 0 else size)
