"""A folder for unfinished files on the file system of a store, which crashes do not leave behind for good.

::

   STORE/.auravae-scratch/auravae-scratch.MACHINE.RANDOM/lock   marks it as ours; locked while in use
                                                       /...     plain files
   /tmp/auravae-scratch.MACHINE.RANDOM/...                      for a remote store

Only a folder with this name and our mark in its lock is ever emptied, and only of files and links.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from auravae_cli.errors import OutputError
from auravae_cli.files.atomic import make_folder, sync
from auravae_cli.files.leftovers import (
    CLAIMS,
    MACHINE,
    is_claimed,
    is_dead,
    is_old,
    machine,
    open_lock,
)
from auravae_cli.files.storage import LocalStorage, Storage

SCRATCH = ".auravae-scratch"
_PREFIX = "auravae-scratch."
_NAME = re.compile(re.escape(_PREFIX) + MACHINE)
_LOCK = "lock"
_MARK = b"Unfinished files of auravae. Once the run that made this folder is dead, the next removes it.\n"


@contextmanager
def scratch_folder(storage: Storage) -> Iterator[Path]:
    """Yield a folder for this process; it is removed afterwards, as are those of dead processes.

    For a remote storage, it is in the system's temporary folder. It is private, and its name cannot be
    predicted. Raises OutputError.
    """
    own = storage.path / SCRATCH if isinstance(storage, LocalStorage) else None
    parent = own or Path(tempfile.gettempdir())
    try:
        try:
            scratch, lock = _claim(parent, is_own=own is not None)
        except OSError as error:
            raise OutputError(f"cannot write in {parent}: {error.strerror or error}") from error
        with lock:
            try:
                yield scratch
            finally:
                with suppress(OSError):
                    _remove(scratch)
    finally:
        if own is not None:
            with suppress(OSError):  # another process may be using it
                own.rmdir()


@contextmanager
def scratch_if_needed(storage: Storage) -> Iterator[Callable[[], Path]]:
    """Yield a call that returns a `scratch_folder`, made at its first use: nothing else needs a writable place.

    The folders of dead processes are removed in any case, if they can be.
    """
    own = storage.path / SCRATCH if isinstance(storage, LocalStorage) else None
    if own is not None and own.is_dir() and not own.is_symlink():
        _sweep(own)
        with suppress(OSError):  # another process may be using it
            own.rmdir()
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(scratch_folder(storage)))


def publish_bytes(storage: Storage, scratch: Path, name: str, content: bytes) -> None:
    """Write a small file into a storage, atomically. Raises OutputError or StoreError."""
    storage.publish(write_small(scratch, name, content), name)


def write_small(scratch: Path, name: str, content: bytes) -> Path:
    """Write the scratch file that will become ``name``. Raises OutputError."""
    finished = scratch / "small"
    try:
        finished.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error
    return finished


def _claim(parent: Path, *, is_own: bool) -> tuple[Path, BinaryIO]:
    """Make and lock a new folder. ``parent`` is made if it ``is_own``. Raises OSError if that fails."""
    for left in reversed(range(CLAIMS)):
        try:
            if is_own:
                make_folder(parent)
                if parent.is_symlink():
                    raise OSError("it is a link, and links are not followed: remove it")
            _sweep(parent)
            scratch = Path(tempfile.mkdtemp(dir=parent, prefix=f"{_PREFIX}{machine()}."))
            return scratch, _lock(scratch)
        except (FileNotFoundError, FileExistsError):  # another process removed it meanwhile
            if not left:
                raise
            time.sleep(0.001)
    raise AssertionError("unreachable")


def _lock(scratch: Path) -> BinaryIO:
    """Lock a new folder and mark it as ours. Raises FileNotFoundError if another process removed it."""
    try:
        with ExitStack() as stack:
            lock = stack.enter_context((scratch / _LOCK).open("xb"))
            if not is_claimed(lock.fileno(), scratch / _LOCK):
                raise FileNotFoundError(f"{scratch} was taken for a dead process's")
            lock.write(_MARK)
            lock.flush()
            sync(lock.fileno())  # first of all: an unmarked folder would stay for good
            stack.pop_all()
            return lock
    except OSError:
        with suppress(OSError):
            _remove(scratch)
        raise


def _sweep(parent: Path) -> None:
    """Remove the folders of dead processes: ours by name, owner and mark, and not links."""
    with suppress(OSError), os.scandir(parent) as found:
        folders = [
            (Path(entry.path), match[1])
            for entry in found
            if (match := _NAME.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False)
        ]
        for folder, maker in folders:
            with suppress(OSError):  # another user's, or already gone
                if not hasattr(os, "getuid") or folder.lstat().st_uid == os.geteuid():
                    _remove_if_dead(folder, maker)


def _remove_if_dead(folder: Path, maker: str) -> None:
    with os.scandir(folder) as found:
        changed = {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in found}
    latest = max(changed.values(), default=folder.stat().st_mtime)
    if not changed:  # killed before it had a lock, or while it was removed
        if maker == machine() or is_old(latest):
            folder.rmdir()
        return
    lock = open_lock(folder / _LOCK)
    try:
        content = os.read(lock, len(_MARK) + 1)
        newborn = changed.keys() == {_LOCK} and _MARK.startswith(content)
        if (newborn or content == _MARK) and is_dead(lock, maker, latest):
            _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove the files in a folder of ours, the lock last, and then the folder. Raises OSError."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name != _LOCK:
                os.unlink(entry.path)  # noqa: PTH108 - a link itself; a folder is none of ours
    (folder / _LOCK).unlink(missing_ok=True)
    folder.rmdir()
