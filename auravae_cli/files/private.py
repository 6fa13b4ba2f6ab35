"""Folders and files that are this user's alone: what is read from there may be trusted, or even run.

A folder counts as private if nobody else can write to it, nor put another one in its place: each
folder and each link on the way to it is root's or this user's own, and only folders like ``/tmp``,
where nobody may move what others own, are open to all. Systems without such owners are left to
their own rules.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from auravae_cli.files.atomic import write_atomically

MOST_LINKS = 40  # on the way to a folder, as in the kernel
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class InsecureError(OSError):
    """Others can change what is there."""


def private_folder(path: Path, make: bool = False) -> Path:
    """A folder of this user's alone, named without links.

    Args:
        make: make it where it is missing, and the folders above it.

    Raises:
        InsecureError: others can change it, or put another one in its place.
        OSError: it is missing, or no folder, or cannot be made.
    """
    if not hasattr(os, "getuid"):
        if make:
            path.mkdir(parents=True, exist_ok=True)
        return path
    found = _without_links(path.absolute(), make)
    status = found.lstat()
    if status.st_uid != os.getuid():
        raise InsecureError(f"{found} belongs to user {status.st_uid}, not to {os.getuid()}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        found.chmod(0o700)  # an older version made it
    return found


def read_private(path: Path) -> bytes:
    """The content of a file of this user's alone, in a private folder.

    Raises:
        InsecureError: it belongs to somebody else, or others may write to it.
        OSError: it is missing, a link, or no regular file, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InsecureError(f"{path} is no regular file")
        if hasattr(os, "getuid"):
            _require_owner(path, status)
            if status.st_mode & _OTHERS_WRITE:
                raise InsecureError(f"others may write to {path}")
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a whole file for `read_private`, or leave what was there. OutputError or OSError."""
    write_atomically(path, content)
    path.chmod(0o600)  # the folder has kept others out so far


def _without_links(path: Path, make: bool) -> Path:
    """The folder that a path leads to, each step of which only root or this user can change."""
    found, waiting, links = Path(path.anchor), list(reversed(path.parts[1:])), 0
    _require_private(found, found.lstat())
    while waiting:
        part = waiting.pop()
        if part == "..":
            found = found.parent
            continue
        step = found / part
        if make:
            _make(step)
        status = step.lstat()
        if not stat.S_ISLNK(status.st_mode):
            _require_private(step, status)
            found = step
            continue
        _require_owner(step, status)
        links += 1
        if links > MOST_LINKS:
            raise InsecureError(f"{path} leads from link to link")
        target = step.readlink()
        if target.is_absolute():
            found = Path(target.anchor)
        waiting.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
    return found


def _make(folder: Path) -> None:
    if not os.path.lexists(folder):
        folder.mkdir(mode=0o700, exist_ok=True)


def _require_private(folder: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{folder} is no folder")
    _require_owner(folder, status)
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise InsecureError(f"others may write to {folder}")


def _require_owner(path: Path, status: os.stat_result) -> None:
    """Root can do what it likes in any case."""
    if status.st_uid not in (0, os.getuid()):
        raise InsecureError(f"{path} belongs to user {status.st_uid}")
