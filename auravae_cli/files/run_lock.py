"""Runs side by side that write into one folder: those of the same settings share it, others are refused.

::

    FOLDER/.auravae-run     the settings of the runs under way, each of which holds its lock, shared
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auravae_cli.errors import OutputError
from auravae_cli.files.atomic import make_folder
from auravae_cli.files.leftovers import CLAIMS

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".auravae-run"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def claim_folder(folder: Path, settings: str) -> Iterator[None]:
    """Share a folder with runs of equal ``settings`` until the block ends.

    Where there are no locks, or nothing can be written, nothing is shared, and nothing refused.

    Raises:
        OutputError: a run with other settings writes there.
    """
    is_new = not folder.is_dir()
    descriptor = None if fcntl is None else _claim(folder, settings.encode())
    try:
        yield
    finally:
        if descriptor is not None:
            _release(descriptor, folder / NAME)
        if is_new:
            with suppress(OSError):  # nothing was written
                folder.rmdir()


def _claim(folder: Path, settings: bytes) -> int | None:
    """Return the locked file; None if there are no locks."""
    for _ in range(CLAIMS):
        try:
            make_folder(folder)
            descriptor = os.open(folder / NAME, _FLAGS, 0o666)
        except OSError:  # it cannot be written: the results cannot either
            return None
        found = _share(descriptor, folder / NAME, settings)
        if found == settings:
            return descriptor
        os.close(descriptor)
        if found is None:
            return None
        if found:
            raise OutputError(
                f"{folder}: another run writes there with other settings, and their results would mix: wait "
                "for it, or name another folder"
            )
        time.sleep(0.001)  # another run begins or ends at this very moment
    return None


def _share(descriptor: int, path: Path, settings: bytes) -> bytes | None:
    """Return the settings of the runs that share the file now; empty if it has to be opened again."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_first = True
    except BlockingIOError:
        is_first = False
    except OSError:
        return None
    try:
        if is_first and _is_still(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, settings, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.pread(descriptor, 1024, 0) if _is_still(descriptor, path) else b""
    except OSError:
        return b""


def _is_still(descriptor: int, path: Path) -> bool:
    """Return whether a file that was opened still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _release(descriptor: int, path: Path) -> None:
    """Give a lock up; the last run removes the file."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(descriptor, path):
            path.unlink()
    os.close(descriptor)
