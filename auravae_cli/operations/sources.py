"""From what the user names to the files of a dataset: pictures, what stands beside them, tars."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from auravae_cli.errors import InputImageError
from auravae_cli.files.storage import Entry, is_remote, open_storage
from auravae_cli.operations.names import Named, folder, resolve
from auravae_cli.operations.suffixes import (
    PICTURE_TAGS,
    PICTURES,
    TARS as TARS,
    count_passed_over,
)

COMPANIONS = (".txt", ".caption", ".json", ".cls")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read: the root of its storage, and what the storage says of it.

    ``key`` names it within the data set.
    """

    root: str
    entry: Entry
    key: str


Listings: TypeAlias = dict[str, dict[str, SourceFile]]  # folder => key => file


def find_files(
    arguments: Iterable[str], passed_over: Counter[str] | None = None
) -> list[SourceFile]:
    """The pictures, their companions, and the tars that the arguments name, each once, by key.

    An argument is a file, a folder (all that lies below it), a pattern, or a URL of any of these;
    ``{00000..00099}`` and ``{a,b}`` are expanded as a shell does. ``passed_over`` counts, by suffix,
    the files of folders that look like pictures and are not read.

    Raises:
        InputImageError: nothing is there, or two files have one key.
    """
    names = [_with_remote_folders(named) for named in resolve(arguments)]
    listings: Listings = {}
    several = sum(bool(named.pattern) for named in names) > 1
    by_key: dict[str, SourceFile] = {}
    for named in names:
        files = list(_find(named, listings, passed_over))
        if not files:
            raise InputImageError(f"{named.text}: no pictures and no tars there")
        within = f"{_folder_name(named.root)}/" if several and named.pattern else ""
        for file in files:
            key = within + file.key
            other = by_key.setdefault(key, replace(file, key=key) if within else file)
            if _place(other) != _place(file):
                raise InputImageError(
                    f"{_place(other)} and {_place(file)} would both be {key!r} in the store; "
                    "name the folder above them"
                )
    pictured = {stem(key) for key in by_key if is_picture(key)}
    return [by_key[key] for key in sorted(by_key) if is_tar(key) or stem(key) in pictured]


def is_tar(name: str) -> bool:
    """Whether a name is that of a tar."""
    return name.lower().endswith(TARS)


def is_picture(key: str) -> bool:
    """Whether a name is that of a picture."""
    return Path(key).suffix.lower() in PICTURES


def stem(key: str) -> str:
    """A file's key without its suffix: what a picture and its companions share."""
    return key.rpartition(".")[0]


def _with_remote_folders(named: Named) -> Named:
    """The same; a URL that does not look like a file's is a folder's."""
    is_file = named.pattern or not is_remote(named.text) or is_wanted(named.text)
    return named if is_file else folder(named.text)


def _find(
    named: Named, listings: Listings, passed_over: Counter[str] | None
) -> Iterator[SourceFile]:
    """The files that one name stands for; ``listings`` remembers folders that were listed."""
    name = named.text.rstrip("/").rpartition("/")[2]
    if named.pattern:
        listing = _listing(named.root, listings, passed_over if named.is_folder else None)
        for entry in named.choose((file.entry for file in listing.values()), PICTURE_TAGS):
            if named.is_folder:
                yield listing[entry.name]
            elif not _is_companion(entry.name):
                yield from _with_companions(entry.name, listing)
    elif is_remote(named.text):
        yield from _with_companions(name, _listing(named.root, listings))
    elif is_wanted(name):
        yield from _with_companions(name, _beside(Path(named.text)))


def _with_companions(key: str, listing: Mapping[str, SourceFile]) -> Iterator[SourceFile]:
    """A file, and a picture's companions, out of a folder's files; none where it is not there."""
    kinds = COMPANIONS if is_picture(key) else ()
    names = [key, *(stem(key) + kind for kind in kinds)]
    if key in listing:
        yield from (listing[name] for name in names if name in listing)


def _beside(path: Path) -> dict[str, SourceFile]:
    found = {}
    for file in (path, *(path.with_suffix(kind) for kind in COMPANIONS)):
        if os.path.isfile(file):  # noqa: PTH113 - never raises
            status = file.stat()
            entry = Entry(file.name, status.st_size, str(status.st_mtime_ns))
            found[file.name] = SourceFile(str(path.parent), entry, file.name)
    return found


def _listing(
    root: str, listings: Listings, passed_over: Counter[str] | None = None
) -> dict[str, SourceFile]:
    if root not in listings:
        entries = list(open_storage(root).entries())
        if passed_over is not None:
            count_passed_over((e.name for e in entries), (*PICTURES, *TARS), passed_over)
        listings[root] = {
            entry.name: SourceFile(root, entry, entry.name)
            for entry in entries
            if is_wanted(entry.name)
        }
    return listings[root]


def _is_companion(key: str) -> bool:
    return Path(key).suffix.lower() in COMPANIONS


def is_wanted(name: str) -> bool:
    """Whether a name is that of anything that a shard is made from."""
    return is_tar(name) or is_picture(name) or _is_companion(name)


def _folder_name(root: str) -> str:
    """The last part of a root's name; that of ``.`` and ``..``, too, which is no name."""
    return root.rstrip("/").rpartition("/")[2] if is_remote(root) else Path(root).resolve().name


def _place(file: SourceFile) -> str:
    """Where a file lies, whichever way it was named."""
    if is_remote(file.root):
        return f"{file.root.rstrip('/')}/{file.entry.name}"
    return os.path.abspath(os.path.join(file.root, file.entry.name))  # noqa: PTH100, PTH118 - keeps links
