"""A folder for unfinished files, on the file system of a store, that no crash leaves behind for good."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_TRIES = 100  # at making a folder in one that others, who end, remove
_OLD = 7 * 24 * 3600  # seconds after which another machine's leftovers are surely nobody's


@contextmanager
def scratch_folder(storage: Storage) -> Iterator[Path]:
    """A folder for this process alone; it, and what dead processes left, is removed.

    For a remote storage it lies in the system's temporary folder.
    """
    if not isinstance(storage, LocalStorage):
        with tempfile.TemporaryDirectory(prefix="auravae-") as folder:
            yield Path(folder)
        return
    parent = storage.path / SCRATCH
    try:
        scratch, lock = _make_folder(parent)
    except OSError as error:
        raise OutputError(f"cannot write in {storage.root}: {error.strerror or error}") from error
    with lock:
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with suppress(OSError):  # another process is at work in it
                parent.rmdir()


def publish_bytes(storage: Storage, scratch: Path, name: str, content: bytes) -> None:
    """Write a whole small file into a storage. Raises OutputError or StoreError."""
    finished = scratch / "small"
    try:
        finished.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error
    storage.publish(finished, name)


def _make_folder(parent: Path) -> tuple[Path, BinaryIO]:
    """A folder and its lock, which is held before the folder has the name that a sweep looks for."""
    for attempt in range(_TRIES):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            new = Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))
            break
        except (FileNotFoundError, FileExistsError):  # another process removed the parent just now
            if attempt == _TRIES - 1:
                raise
    lock = (new / _LOCK).open("wb")
    _try_lock(lock)
    return new.rename(parent / f"{_host()}-{new.name.removeprefix('.new-')}"), lock


def _sweep(parent: Path) -> None:
    """Remove the folders of processes that are dead: those whose lock can be had."""
    for folder in parent.iterdir():
        with suppress(OSError):
            if folder.name.startswith(f"{_host()}-") and fcntl is not None:
                with (folder / _LOCK).open("ab") as lock:
                    if not _try_lock(lock):
                        continue
            elif time.time() - folder.stat().st_mtime < _OLD:
                continue
            shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: BinaryIO) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _host() -> str:
    return socket.gethostname().partition(".")[0] or "host"
