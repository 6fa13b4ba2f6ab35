"""Folders and files that only this user can write, whose content can be trusted, or even run.

A folder is private if nobody else can write to it or replace it: each folder and each link on its
path belongs to root or to this user, and only folders like ``/tmp``, where nobody can move the
entries of others, are writable by all. Systems without such owners are left to their own rules.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from auravae_cli.files.atomic import write_atomically

MOST_LINKS = 40  # links on a path, as in the kernel
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class InsecureError(OSError):
    """Others can change the file or folder."""


def private_folder(path: Path, make: bool = False) -> Path:
    """Return a folder that only this user can write, with links resolved.

    Args:
        make: create it, and its parents, if missing.

    Raises:
        InsecureError: others can change or replace it.
        OSError: it is missing, is not a folder, or cannot be made.
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


def trusted_folder(path: Path) -> Path:
    """Return a folder that only this user or root can write, with links resolved.

    Raises:
        InsecureError: others can change or replace it.
        OSError: it is missing or not a folder.
    """
    return _without_links(path.absolute(), False) if hasattr(os, "getuid") else path


def read_private(path: Path) -> bytes:
    """Read a file that only this user can write, in a private folder.

    Raises:
        InsecureError: it belongs to somebody else, or others can write to it.
        OSError: it is missing, a link, not a regular file, or unreadable.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InsecureError(f"{path} is not a regular file")
        if hasattr(os, "getuid"):
            _require_owner(path, status)
            if status.st_mode & _OTHERS_WRITE:
                raise InsecureError(f"others may write to {path}")
        return file.read()


def write_private(path: Path, content: bytes) -> None:
    """Write a complete file for `read_private`, or leave the old one. Raises OutputError or OSError."""
    write_atomically(path, content)
    path.chmod(0o600)  # until now the folder has kept others out


def _without_links(path: Path, make: bool) -> Path:
    """Resolve a path, each step of which only root or this user can change."""
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
        raise NotADirectoryError(f"{folder} is not a folder")
    _require_owner(folder, status)
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise InsecureError(f"others may write to {folder}")


def _require_owner(path: Path, status: os.stat_result) -> None:
    """Raise InsecureError unless root or this user owns it. Root can do anything in any case."""
    if status.st_uid not in (0, os.getuid()):
        raise InsecureError(f"{path} belongs to user {status.st_uid}")
