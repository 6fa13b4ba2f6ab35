"""Walk every file below a folder; links are followed, and cycles of links are walked once."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

Entry = TypeVar("Entry")


def files_below(
    folder: str,
    take: Callable[[str, os.DirEntry[str]], Entry],
    refused: Callable[[str, OSError], Entry],
    enters: Callable[[str], bool] = lambda name: True,
) -> list[Entry]:
    """Yield what ``take`` returns for each regular file below a folder except hidden ones, in any order.

    ``take`` gets the file's name below the folder, with ``/``, and its entry. ``refused`` gets the name
    of an entry that cannot be read (empty for the folder itself), and may raise. Only folders whose
    names ``enters`` accepts are entered.

    Links to folders are followed, except links to a folder that contains them. If other links form a
    cycle, every folder is walked once, by its own name if it has one below the first.
    """
    for once in (False, True):
        walk, taken = _Walk(os.path.realpath(folder), enters, once), list[Entry]()
        for name, item in walk.items(folder):
            try:
                if isinstance(item, OSError):
                    raise item
                taken.append(take(name, item))
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                taken.append(refused(name, error))
        if not walk.met_ring:
            break
    return taken


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to walk: its name, its real path, and the folders of the links that led here."""

    name: str
    true: str
    through: tuple[str, ...] = ()


class _Walk:
    """One walk from ``home``. It stops early at a cycle, unless it walks folders ``once``."""

    def __init__(self, home: str, enters: Callable[[str], bool], once: bool) -> None:
        self._home, self._enters, self._once, self.met_ring = home, enters, once, False
        self._walked: set[str] = set()
        self._folders, self._links = [_Folder("", home)], deque[_Folder]()

    def items(self, root: str) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
        """Yield the files, or an error in place of one."""
        while not self.met_ring and (self._folders or self._links):
            # Links come last, so a folder is met by its own name first.
            folder = self._folders.pop() if self._folders else self._links.popleft()
            if self._once and folder.true in self._walked:
                continue
            self._walked.add(folder.true)
            try:
                entries = os.scandir(f"{root}/{folder.name}" if folder.name else root)
            except OSError as error:
                yield folder.name, error
                continue
            with entries:
                yield from self._files(entries, folder)

    def _files(
        self, entries: Iterable[os.DirEntry[str]], folder: _Folder
    ) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
        for entry in entries:  # one at a time: each entry keeps much in memory
            if not entry.name.startswith("."):
                name = f"{folder.name}/{entry.name}" if folder.name else entry.name
                try:
                    if self._is_file(entry, name, folder):
                        yield name, entry
                except OSError as error:
                    if error.errno != errno.ELOOP:  # a broken link, skipped like others
                        yield name, error

    def _is_file(self, entry: os.DirEntry[str], name: str, folder: _Folder) -> bool:
        """Return whether an entry is a file; a folder is added to the list."""
        if not entry.is_dir():
            return entry.is_file()
        if not self._enters(name):
            return False
        if not entry.is_symlink():
            true = os.path.join(folder.true, entry.name)  # noqa: PTH118 - a string, as the others
            self._folders.append(_Folder(name, true, folder.through))
            return False
        target = os.path.realpath(entry.path)
        if _lies_in(folder.true, target) or (self._once and self._has_a_name(target)):
            return False
        self.met_ring |= not self._once and any(_lies_in(p, target) for p in folder.through)
        self._links.append(_Folder(name, target, (*folder.through, folder.true)))
        return False

    def _has_a_name(self, target: str) -> bool:
        """Return whether a folder will be walked by its own name, without a link."""
        if not _lies_in(target, self._home):
            return False
        return not any(part.startswith(".") for part in PurePath(target[len(self._home) :]).parts)


def _lies_in(place: str, folder: str) -> bool:
    """Return whether a real path is a folder or below it."""
    return place == folder or place.startswith(os.path.join(folder, ""))  # noqa: PTH118
