"""Unfinished files left by killed runs: recognised by their names, dead if nobody holds their lock.

The name records the machine of the process. On that machine, the lock tells whether the process is
alive; a process id would not, since ids are reused and differ between containers. A file from
another machine, or without lock support, is left alone until it is old.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
OLD = 7 * 24 * 3600  # seconds after which a file without a lock is certainly abandoned
CLAIMS = 100
MACHINE = r"([0-9a-f]{12})\.[a-z0-9_]{8}"  # the end of our names, as `tempfile` generates it
_SUFFIX = ".auravae"
_NAME = re.compile(rf"(?s)\..*\.{MACHINE}{re.escape(_SUFFIX)}")


@cache
def machine() -> str:
    """Return 12 digits that identify the running kernel, whose containers all see each other's locks."""
    name = socket.gethostname()
    with suppress(OSError, UnicodeDecodeError):
        name = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def claim_file(folder: Path, name: str) -> tuple[int, Path]:
    """Open and lock a new file beside the future ``name``; dead files are removed first.

    Other runs remove it once its lock is released. Raises OSError if none can be made.
    """
    _sweep_once(str(folder))
    for _ in range(CLAIMS):
        prefix = f".{name[:40]}.{machine()}."
        descriptor, path = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=_SUFFIX)
        if is_claimed(descriptor, path):
            return descriptor, Path(path)
        os.close(descriptor)
    raise FileNotFoundError(f"{folder}: other runs removed each file that was made")


def is_claimed(descriptor: int, path: str | Path) -> bool:
    """Lock a new file; False if another run took it for a dead one in between."""
    try:
        locked = try_lock(descriptor) is not False
        return locked and os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def is_dead(descriptor: int, maker: str, changed: float) -> bool:
    """Return whether the process that made a file is gone; if so, we hold its lock until it is closed.

    ``maker`` is the process's machine, ``changed`` the time of the last change.
    """
    had = try_lock(descriptor)
    return (
        bool(had)
        if had is not None and maker == machine()
        else had is not False and is_old(changed)
    )


def is_old(changed: float) -> bool:
    """Return whether the last change, in seconds since 1970, is too long ago for a running process."""
    return time.time() - changed > OLD


def try_lock(descriptor: int) -> bool | None:
    """Return whether we now hold the lock; None if locks are not supported."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems do not support it
        return None
    return True


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an existing file, waiting for others; where locks are not supported, none is held."""
    descriptor = None
    try:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def open_lock(path: str | Path) -> int:
    """Open a file of ours to query its lock. Raises OSError if it is not a plain file."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path} is not a file")
    return descriptor


@lru_cache(maxsize=1024)  # once per folder and process: it may hold a million files
def _sweep_once(folder: str) -> None:
    with suppress(OSError), os.scandir(folder) as found:
        names = [
            (entry.path, match[1]) for entry in found if (match := _NAME.fullmatch(entry.name))
        ]
        for path, maker in names:
            with suppress(OSError):  # another user's, or already gone
                _remove_if_dead(path, maker)


def _remove_if_dead(path: str, maker: str) -> None:
    descriptor = open_lock(path)
    try:
        if is_dead(descriptor, maker, os.fstat(descriptor).st_mtime):
            os.unlink(path)  # noqa: PTH108 - the lock is held while it goes
    finally:
        os.close(descriptor)
