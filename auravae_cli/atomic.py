"""Files that are whole or absent: bytes -> temporary name in the same folder -> fsync -> rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from auravae_cli.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it appears, replacing any older file, only if the block succeeds.

    Parent folders are made. The mode follows the umask.

    Raises:
        OutputError: the place cannot be written; nothing is left there.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
        with os.fdopen(descriptor, "wb") as file:
            yield file
            _finish(file)
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def publish(finished: Path, path: Path) -> None:
    """Move a finished file of the same file system to ``path``; like `atomic_file` otherwise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with finished.open("rb") as file:
            _finish(file)
        finished.replace(path)
        settle(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def settle(folder: Path) -> None:
    """Wait until the names in a folder would survive a power failure. OSError where they cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what was there. Raises OutputError."""
    with atomic_file(path) as file:
        file.write(data)


def _finish(file: BinaryIO) -> None:
    """Give an open file the mode that the umask asks for, and wait until it is on the disk."""
    file.flush()
    if hasattr(os, "fchmod"):
        os.fchmod(file.fileno(), 0o666 & ~_umask())
    os.fsync(file.fileno())


def _umask() -> int:
    """The process's umask. It can only be read by setting it, so it is read once, at import."""
    return _UMASK


_UMASK = os.umask(0)
os.umask(_UMASK)
