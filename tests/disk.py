"""A disk that fails where a test wants it to, and forgets what was not synced when its power fails."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALLS = ("fsync", "link", "mkdir", "replace", "rmdir", "unlink")


class Killed(BaseException):
    """As if the process had ended here: what follows changes nothing any more."""


class Disk:
    """Counts what changes the disk: ``at(kind, number)`` is called before each, and may raise.

    Kinds are the names of `CALLS`, ``open`` (for writing) and ``write``. It knows what was synced,
    of files and of folders, so that `after_power_failure` can say what would be left below ``root``.
    """

    def __init__(self, root: Path, at: Callable[[str, int], None] = lambda kind, number: None):
        self.root, self.at, self.steps = root, at, 0
        self._contents: dict[int, bytes] = {}  # of inodes, as synced
        self._names: dict[int, dict[str, int]] = {}  # of inodes of folders, as synced
        self._folders: set[int] = set()
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                self._sync_folder(path)
            else:
                self._contents[path.stat().st_ino] = path.read_bytes()

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """Let the process use this disk."""
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._counted(name, getattr(os, name)))
            patch.setattr(io, "open", self._opened(io.open))
            yield self

    def _step(self, kind: str) -> None:
        self.steps += 1
        self.at(kind, self.steps)

    def _counted(self, kind: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._step(kind)
            if kind == "fsync":  # which would wait for the true disk
                return self._sync(arguments[0])
            result = genuine(*arguments, **options)
            if kind == "mkdir":
                inode = Path(arguments[0]).stat().st_ino
                self._folders.add(inode)
                self._names.pop(inode, None)  # of a folder gone before
            return result

        return call

    def _opened(self, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(
            file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any
        ) -> Any:
            if "b" not in mode or "+" in mode or not set("wxa") & set(mode):
                return genuine(file, mode, buffering, *rest, **options)
            self._step("open")
            closefd = options.get("closefd", True)
            raw = _Counted(self, file, mode.replace("b", ""), closefd)
            if "a" not in mode:
                inode = os.fstat(raw.fileno()).st_ino  # of a file cut to nothing, or a new one
                self._contents.pop(inode, None)
                self._folders.discard(inode)
            return raw if buffering == 0 else io.BufferedWriter(raw)

        return call

    def _sync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._sync_folder(path)
        else:
            self._contents[status.st_ino] = path.read_bytes()

    def _sync_folder(self, path: Path) -> None:
        self._folders.add(path.stat().st_ino)
        self._names[path.stat().st_ino] = {
            item.name: item.lstat().st_ino for item in path.iterdir()
        }

    def after_power_failure(self, *, names_survive: bool) -> dict[str, bytes]:
        """What is left: files as synced, else empty; a folder as its name with a slash.

        Names as synced; with ``names_survive`` as they are now, as many file systems have it, which
        write the names at once and the contents later.
        """
        if names_survive:
            return {
                path.relative_to(self.root).as_posix() + "/" * path.is_dir(): (
                    b"" if path.is_dir() else self._contents.get(path.stat().st_ino, b"")
                )
                for path in self.root.rglob("*")
            }
        return dict(self._survivors(self.root.stat().st_ino, ""))

    def _survivors(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, inode in self._names.get(folder, {}).items():
            if inode in self._folders:
                yield f"{prefix}{name}/", b""
                yield from self._survivors(inode, f"{prefix}{name}/")
            else:
                yield prefix + name, self._contents.get(inode, b"")


class _Counted(io.FileIO):
    """A file whose every write is a step."""

    def __init__(self, disk: Disk, file: Any, mode: str, closefd: bool) -> None:
        super().__init__(file, mode, closefd)
        self._disk = disk

    def write(self, content: Any, /) -> int:
        self._disk._step("write")
        return super().write(content)


def lay_out(root: Path, files: dict[str, bytes]) -> None:
    """Make an empty folder hold these files and folders."""
    for name, content in files.items():
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
