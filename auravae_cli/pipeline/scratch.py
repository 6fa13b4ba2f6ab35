"""A folder for unfinished files, on the file system of a store, that no crash leaves behind for good."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from auravae_cli.errors import OutputError
from auravae_cli.storage import LocalStorage, Storage

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers are kept until they are old
    fcntl = None  # type: ignore[assignment]

SCRATCH = ".scratch"
_LOCK = "lock"
_CLAIMS = 100
_OLD = 7 * 24 * 3600  # seconds after which another machine's leftovers are surely nobody's


@contextmanager
def scratch_folder(storage: Storage) -> Iterator[Path]:
    """A folder for this process alone; it, and what dead processes left, is removed.

    For a remote storage it lies in the system's temporary folder. Raises OutputError.
    """
    parent = Path(tempfile.gettempdir(), _own_name())
    if isinstance(storage, LocalStorage):
        parent = storage.path / SCRATCH
    try:
        scratch, lock = _claim(parent)
    except OSError as error:
        raise OutputError(f"cannot write in {parent}: {error.strerror or error}") from error
    with lock:
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError), _alone(parent):  # another process may be at work in it
                parent.rmdir()


def publish_bytes(storage: Storage, scratch: Path, name: str, content: bytes) -> None:
    """Write a whole small file into a storage. Raises OutputError or StoreError."""
    finished = scratch / "small"
    try:
        finished.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error
    storage.publish(finished, name)


def _claim(parent: Path) -> tuple[Path, BinaryIO]:
    """A new folder and its lock, held. OSError where none can be made."""
    for left in reversed(range(_CLAIMS)):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _alone(parent):
                _sweep(parent)
                scratch = Path(tempfile.mkdtemp(dir=parent, prefix=f"{_host()}."))
                lock = (scratch / _LOCK).open("wb")
                _try_lock(lock)
                return scratch, lock
        except (FileNotFoundError, FileExistsError):  # mkdir raises either where it is removed
            if not left:
                raise
    raise AssertionError("unreachable")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that sweeps, makes a folder in ``folder``, or removes it.

    Else one would take the newborn folder of another, which has no lock yet, for a dead one's.
    Where there are no locks, everybody is. Raises FileNotFoundError where it was removed before.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(f"{folder} was removed and made again")
        yield
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove the folders of processes that are dead: those whose lock can be had, else old ones."""
    for folder in parent.iterdir():
        here = folder.name.startswith(f"{_host()}.")
        with suppress(OSError), (folder / _LOCK).open("ab") if here else nullcontext() as lock:
            had = _try_lock(lock) if lock else None
            old = time.time() - folder.stat().st_mtime > _OLD
            if had or (had is None and old):  # the lock is held while it goes
                shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: BinaryIO) -> bool | None:
    """Whether the lock is ours now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have none
        return None
    return True


def _own_name() -> str:
    """A name that no other user of this machine takes."""
    return f"auravae-{os.getuid()}" if hasattr(os, "getuid") else "auravae"


def _host() -> str:
    return socket.gethostname().partition(".")[0] or "host"
