"""Files that are complete or absent: bytes -> temporary name in the same folder -> fsync -> rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from auravae_cli.errors import NoRoomError, OutputError
from auravae_cli.files.leftovers import HAS_LOCKS, claim_file

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_LINKS = (*_NO_SYNC, errno.EPERM, errno.EACCES, errno.EMLINK)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it appears, replacing any older file, only if the block succeeds.

    Parent folders are made. The mode follows the umask. Leftovers of killed runs in the folder are removed.

    Raises:
        OutputError: the file cannot be written; nothing is left behind.
    """
    try:
        with _claimed(path) as (file, temporary):
            with file:
                yield file
                _finish(file)
            temporary.replace(path)
            settle(path.parent)
    except OSError as error:
        raise not_written(path, error) from error


def publish(finished: Path, path: Path) -> None:
    """Move a finished file of the same file system to ``path``, with the guarantees of `atomic_file`."""
    try:
        make_folder(path.parent)
        with finished.open("rb") as file:
            _finish(file)
        finished.replace(path)
        settle(path.parent)
    except OSError as error:
        raise not_written(path, error) from error


def create(finished: Path, path: Path) -> bool:
    """`publish` a file unless one exists. Return whether this call created it, even if several race.

    Without hard links (exFAT), two calls at the same moment can both return True. Raises OutputError.
    """
    try:
        make_folder(path.parent)
        with finished.open("rb") as file:
            _finish(file)
        try:
            os.link(finished, path)
            finished.unlink()  # otherwise the next writer would write to both
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(path):
                return False
            finished.replace(path)
        settle(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    return True


def not_written(place: Path | str, error: OSError) -> OutputError:
    """Return the error that says that something cannot be written, and whether anything can."""
    reason = f"cannot write {place}: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return NoRoomError(f"{reason}; finished work is kept: run the same line again")
    return OutputError(reason)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, so that their names survive a power failure. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    settle(folder.parent)


def settle(folder: Path) -> None:
    """Wait until the names in a folder would survive a power failure, if the system can tell.

    Raises OSError if the disk fails.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_DIRECTORY)
    except PermissionError:  # the folder can be written, but not read
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until an open file is on the disk, if the file system can tell. Raises OSError if the disk fails."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write a complete file, or leave the old one. Raises OutputError."""
    with atomic_file(path) as file:
        file.write(data)


def create_atomically(path: Path, data: bytes) -> bool:
    """Write a complete file unless one exists. Return whether this call wrote it. Raises OutputError."""
    try:
        with _claimed(path) as (file, temporary):
            with file:
                file.write(data)
            return create(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new file beside ``path``, locked as long as the block runs; it goes unless it got another name."""
    make_folder(path.parent)
    descriptor, temporary = claim_file(path.parent, path.name)
    lock = None
    try:
        with os.fdopen(descriptor, "wb") as file:
            if HAS_LOCKS:  # keep the lock until it has its name; Windows cannot rename an open file
                lock = os.dup(descriptor)
            yield file, temporary
    finally:
        with suppress(OSError):  # it has its name, or the next run removes it
            temporary.unlink()
        if lock is not None:
            os.close(lock)


def _finish(file: BinaryIO) -> None:
    """Give an open file the mode of the umask, and wait until it is on the disk."""
    file.flush()
    if hasattr(os, "fchmod"):
        with suppress(OSError):  # the modes of some mounts are fixed
            os.fchmod(file.fileno(), 0o666 & ~_umask())
    sync(file.fileno())


def _umask() -> int:
    """The process's umask. Reading it means setting it, so it is read once, at import."""
    return _UMASK


_UMASK = os.umask(0)
os.umask(_UMASK)
