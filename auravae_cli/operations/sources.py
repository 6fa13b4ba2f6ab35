"""Turn what the user names into the files of a dataset: pictures, their companions, tars."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from auravae_cli.errors import AuraVaeError, InputImageError, MissingInputError
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.patterns import stands
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
    """A file to read: the root of its storage, and the storage's entry.

    ``key`` names it within the dataset.
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
        MissingInputError: a named file is not there, or of another kind.
        InputImageError: a folder or a pattern gives nothing, or two files have the same key.
    """
    names = [_with_remote_folders(named) for named in resolve(arguments)]
    listings: Listings = {}
    several = sum(bool(named.pattern) for named in names) > 1
    by_key: dict[str, SourceFile] = {}
    for named in names:
        files = list(_find(named, listings, passed_over))
        if not files:
            raise _nothing(named)
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


def _nothing(named: Named) -> AuraVaeError:
    """Return why a name stands for no file: it is missing, of another kind, or an empty folder."""
    if named.pattern:
        return InputImageError(f"{named.text}: no pictures and no tars there")
    if is_remote(named.text) or not stands(named.text):
        return MissingInputError(f"{named.text}: cannot be read: {os.strerror(errno.ENOENT)}")
    kind = kind_of_file(Path(named.text))
    if kind is None or kind.is_picture:
        kinds = "pictures and tars are known by their suffixes, such as .jpg or .tar"
        return MissingInputError(f"{named.text}: {kinds}")
    return MissingInputError(f"{named.text}: {kind}")


def is_tar(name: str) -> bool:
    """Return whether a name is a tar's."""
    return name.lower().endswith(TARS)


def is_picture(key: str) -> bool:
    """Return whether a name is a picture's."""
    return Path(key).suffix.lower() in PICTURES


def stem(key: str) -> str:
    """Return a file's key without its suffix, which a picture and its companions share."""
    return key.rpartition(".")[0]


def _with_remote_folders(named: Named) -> Named:
    """Return the same, but take a URL that does not look like a file's for a folder's."""
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
    """Yield a file, and a picture's companions, of a folder's files; none if it does not exist."""
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
    """Return whether a name is that of anything that goes into a shard."""
    return is_tar(name) or is_picture(name) or _is_companion(name)


def _folder_name(root: str) -> str:
    """Return the last part of a root's name, also for ``.`` and ``..``."""
    return root.rstrip("/").rpartition("/")[2] if is_remote(root) else Path(root).resolve().name


def _place(file: SourceFile) -> str:
    """Return where a file is, however it was named."""
    if is_remote(file.root):
        return f"{file.root.rstrip('/')}/{file.entry.name}"
    return os.path.abspath(os.path.join(file.root, file.entry.name))  # noqa: PTH100, PTH118 - keeps links
