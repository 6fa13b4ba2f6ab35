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
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask()) if hasattr(os, "fchmod") else None
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what was there. Raises OutputError."""
    with atomic_file(path) as file:
        file.write(data)


def _umask() -> int:
    """The process's umask. It can only be read by setting it, so it is read once, at import."""
    return _UMASK


_UMASK = os.umask(0)
os.umask(_UMASK)
