"""A folder of complete files, local or on a remote store, behind one interface.

Local folders need only the standard library. Anything with a scheme (``s3://bucket/folder``) uses
fsspec; failed requests are repeated after a growing pause.
"""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from auravae_cli.errors import OutputError, StoreError
from auravae_cli.files.atomic import create, publish, settle
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import map_or_read, open_regular, read_within
from auravae_cli.files.places import below, fault_of, is_remote, local_name
from auravae_cli.files.spelling import tells_apart
from auravae_cli.files.typed import shown
from auravae_cli.files.walk import files_below

ATTEMPTS = 10  # per remote request: if half of the requests fail, one in a thousand gives up
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between them
_NOT_WORTH_REPEATING = (PermissionError, IsADirectoryError, NotADirectoryError)
_MISSING = (
    "EntryNotFoundError",
    "RemoteEntryNotFoundError",
)  # huggingface_hub's, where fsspec's differ
_NO_ACCESS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")  # botocore's

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a storage: its name below the root, its size in bytes, and its version.

    ``version`` changes with the file and is cheap to get (a modification time, an ETag); empty if unknown.
    """

    name: str
    size: int
    version: str


class Storage(Protocol):
    """A folder of files. Methods raise StoreError, or FileNotFoundError for missing files."""

    root: str

    def entries(self, unreadable: list[str] | None = None) -> Iterator[Entry]:
        """Yield every file below the root except hidden ones, in the order of names.

        Why a folder cannot be listed is added to ``unreadable``, if given; otherwise it is an error.
        """

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises FileNotFoundError if it does not exist, and StoreError if it is too large for memory; `map`
        is for such files.
        """

    def open(self, name: str) -> io.BufferedReader:
        """Open a file for reading from start to end."""

    def map(self, name: str) -> memoryview:
        """Memory-map a file's content; it stays readable if the file is replaced."""

    def publish(self, finished: Path, name: str) -> None:
        """Move a finished file of the same file system to its place, atomically.

        Raises OutputError or StoreError if it cannot be written.
        """

    def create(self, finished: Path, name: str) -> bool:
        """`publish` a file unless it exists. Return whether this call created it.

        If several calls race, one of them creates it; for exceptions see `atomic.create`, and remote stores
        without conditional writes.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def check(self, name: str) -> None:
        """Raise StoreError if the folder cannot have a file of this name."""

    def tells_apart(self) -> bool:
        """Return whether names that differ only in case, or in how accents are encoded, are distinct files."""


def open_storage(location: str) -> Storage:
    """Return the storage at a path or a URL."""
    if is_remote(location):
        return RemoteStorage(location)
    return LocalStorage(Path(local_name(location)))


class LocalStorage:
    """A folder on this machine, or mounted on it."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, str(path)

    def entries(self, unreadable: list[str] | None = None) -> Iterator[Entry]:
        def entry(name: str, item: os.DirEntry[str]) -> Entry | None:
            status = item.stat()
            return Entry(name, status.st_size, str(status.st_mtime_ns))

        def refused(name: str, error: OSError) -> Entry | None:
            place = f"{self.root}/{name}".rstrip("/")
            reason = f"{place}: cannot be listed: {error.strerror or error}"
            if unreadable is None:
                raise StoreError(reason) from error
            unreadable.append(reason)
            return None

        found = files_below(str(self.path), entry, refused)
        yield from sorted(filter(None, found), key=lambda entry: entry.name)

    def read(self, name: str) -> bytes:
        with self.open(name) as file, _told(name):
            return read_within(file, FILE_BYTES, StoreError)

    def open(self, name: str) -> io.BufferedReader:
        path = self._place(name, to_write=False)
        with _told(path):
            return open_regular(path)

    def map(self, name: str) -> memoryview:
        with self.open(name) as file, _told(name):
            return _mapped(file)

    def publish(self, finished: Path, name: str) -> None:
        publish(finished, self._place(name))

    def create(self, finished: Path, name: str) -> bool:
        return create(finished, self._place(name))

    def remove(self, name: str) -> None:
        path = self._place(name)
        with _told(path):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                settle(path.parent)

    def check(self, name: str) -> None:
        _check(name, self.root)
        self._place(name)

    def tells_apart(self) -> bool:
        return tells_apart(self.path)

    def _place(self, name: str, *, to_write: bool = True) -> Path:
        try:
            return below(self.path, name, to_write=to_write)
        except OutputError as error:
            raise StoreError(str(error)) from error


class RemoteStorage:
    """A prefix of an object store, or any other file system of fsspec."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.root = url.rstrip("/")
        try:
            self._files, self._prefix = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            package = {"s3": "s3fs", "hf": "huggingface_hub"}.get(scheme)
            advice = f"pip install {package}" if package else str(error)
            raise StoreError(
                f"{url}: no way to reach {scheme}:// is installed: {advice}"
            ) from error

    def entries(self, unreadable: list[str] | None = None) -> Iterator[Entry]:
        def find(path: str) -> dict[str, dict[str, Any]]:
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(path, detail=True)
            return found

        try:
            found = self._repeated(find, "")
        except FileNotFoundError:
            return
        for path in sorted(found):
            name = path[len(self._prefix) :].lstrip("/")
            # Some clients mark folders by empty objects: "train/" is not a file.
            if not any(part.startswith(".") or not part for part in name.split("/")):
                size = int(found[path].get("size") or 0)
                yield Entry(name, size, _remote_version(found[path]))

    def read(self, name: str) -> bytes:
        content: bytes = self._repeated(self._files.cat_file, name)
        return content

    def open(self, name: str) -> io.BufferedReader:
        return io.BufferedReader(_RepeatedReads(self, name), 1 << 20)

    def map(self, name: str) -> memoryview:
        with tempfile.TemporaryFile() as file:
            with self.open(name) as source:
                shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            return _mapped(file)

    def publish(self, finished: Path, name: str) -> None:
        # A single PUT, or a multipart upload that is completed at the end: never half a file.
        self._put(lambda path: self._files.put_file(str(finished), path), name)
        finished.unlink()

    def create(self, finished: Path, name: str) -> bool:
        content = finished.read_bytes()
        is_there = self._put(lambda path: _pipe_new(self._files, path, content), name)
        finished.unlink()
        return is_there

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._repeated(self._files.rm_file, name)

    def check(self, name: str) -> None:
        _check(name, self.root)

    def tells_apart(self) -> bool:
        return True  # object stores distinguish them

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` of a file, fewer at its end."""
        content: bytes = self._repeated(
            lambda path: self._files.cat_file(path, start=start, end=stop), name
        )
        return content

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return int(self._repeated(lambda path: self._files.info(path)["size"], name))

    def entry(self, name: str) -> Entry:
        """Return a file that no listing needs to name. Raises FileNotFoundError, StoreError."""
        info = self._repeated(self._files.info, name)
        return Entry(name, int(info.get("size") or 0), _remote_version(info))

    def _put(self, request: Callable[[str], Result], name: str) -> Result:
        try:
            return self._repeated(request, name)
        except FileNotFoundError as error:
            raise StoreError(f"{self.root}/{name}: no such bucket or folder: {error}") from error

    def _repeated(self, request: Callable[[str], Result], name: str) -> Result:
        """Send a request for a file, or for the folder itself if ``name`` is empty, repeating failures."""
        if reason := name and fault_of(name, on_windows=False):
            raise StoreError(f"{shown(name)} {reason}: no file of {self.root} can have this name")
        path = f"{self._prefix}/{name}" if name else self._prefix
        is_new = not getattr(self._files, "dircache", None)  # what it knows of folders
        for attempt in range(ATTEMPTS):
            try:
                return request(path)
            except FileNotFoundError:
                if is_new or attempt == ATTEMPTS - 1:
                    raise
                self._files.invalidate_cache()  # another machine may have made it since the listing
                is_new = True
                continue
            except Exception as error:  # clients of stores raise errors of many libraries
                if type(error).__name__ in _MISSING:
                    raise FileNotFoundError(path) from error
                if isinstance(error, _NOT_WORTH_REPEATING) or type(error).__name__ in _NO_ACCESS:
                    raise StoreError(f"{self.root}/{name}: {error}") from error
                if attempt == ATTEMPTS - 1:
                    reason = str(error).strip().partition("\n")[0] or type(error).__name__
                    raise StoreError(
                        f"{self.root}/{name}: gave up after {ATTEMPTS} attempts: {reason}"
                    ) from error
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
            time.sleep(pause * random.uniform(0.5, 1))  # spreads out workers that failed together
        raise AssertionError("unreachable")


class _RepeatedReads(io.RawIOBase):
    """A remote file read by ranges; failed reads are repeated."""

    BLOCK = 8 << 20

    def __init__(self, storage: RemoteStorage, name: str) -> None:
        self._storage, self._name = storage, name
        self._size = storage.size(name)
        self._position, self._block, self._start = 0, b"", 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._block):
            self._start = self._position
            stop = min(self._size, self._start + self.BLOCK)
            self._block = self._storage.read_range(self._name, self._start, stop)
            if not self._block:
                raise StoreError(f"{self._storage.root}/{self._name}: ends before its own size")
        offset = self._position - self._start
        part = self._block[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _pipe_new(files: Any, path: str, content: bytes) -> bool:
    """Write a file unless one exists. Return whether it was written."""
    files.invalidate_cache(path)
    try:
        files.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # s3fs reports a refused condition of servers other than AWS, and conditions that a server
        # does not support, by these errors.
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        files.invalidate_cache()
        if files.exists(path):
            return False
        if error.errno == errno.EINVAL:
            raise
        files.pipe_file(path, content)
    return True


def _mapped(file: Any) -> memoryview:
    if os.fstat(file.fileno()).st_size == 0:
        return memoryview(b"")
    return map_or_read(file)


def _check(name: str, root: str) -> None:
    reason = fault_of(name)
    if not reason and any(part.startswith(".") for part in name.split("/")):
        reason = "is hidden, and so would not be found again"
    if reason:
        raise StoreError(f"{shown(name)} {reason}: no file of {root} can have this name: rename it")


def _remote_version(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""


@contextmanager
def _told(place: Path | str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror or error}") from error
