"""Turn what the user names into the files of a dataset: pictures, their companions, tars."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from auravae_cli.errors import AuraVaeError, InputImageError, MissingInputError, StoreError
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.places import below, is_remote
from auravae_cli.files.storage import Entry, RemoteStorage, open_storage
from auravae_cli.operations.names import Named, folder, instead, resolve
from auravae_cli.operations.suffixes import (
    PICTURE_TAGS,
    PICTURES,
    TARS,
    count_passed_over,
    is_picture,
    is_tar,
)

_WEB = ("http://", "https://")
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
    arguments: Iterable[str],
    passed_over: Counter[str] | None = None,
    unreadable: list[str] | None = None,
) -> list[SourceFile]:
    """The pictures, their companions, and the tars that the arguments name, each once, by key.

    An argument is a file, a folder (all that lies below it), a pattern, or a URL of any of these;
    ``{00000..00099}`` and ``{a,b}`` are expanded as a shell does. ``passed_over`` counts, by suffix,
    the files of folders that look like pictures and are not read. Why a folder below cannot be listed is
    added to ``unreadable``; without it, that is an error.

    Raises:
        MissingInputError: a named file is not there, or of another kind.
        InputImageError: a folder or a pattern gives nothing, or two files have the same key.
    """
    names = [_with_remote_folders(named) for named in resolve(arguments)]
    listings: Listings = {}
    beside: dict[str, dict[str, list[str]]] = {}
    several = sum(bool(named.pattern) for named in names) > 1
    by_key: dict[str, SourceFile] = {}
    for named in names:
        files = list(_find(named, listings, beside, passed_over, unreadable))
        if not files and not unreadable:
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
    return _with_pictures(by_key)


def _with_pictures(by_key: dict[str, SourceFile]) -> list[SourceFile]:
    """Return the pictures, tars and companions of pictures, in the order of their keys.

    A companion whose name is spelt in another normal form than its picture's has the key of that.
    """
    pictured = {stem(key) for key in by_key if is_picture(key)}
    spelt = {_normal(key): key for key in pictured if not key.isascii()}
    found: dict[str, SourceFile] = {}
    for key, file in by_key.items():
        own = stem(key)
        if own not in pictured and not is_tar(key):
            if _normal(own) not in spelt:
                continue
            key = spelt[_normal(own)] + key[key.rindex(".") :]  # noqa: PLW2901
        found.setdefault(key, replace(file, key=key) if key != file.key else file)
    return [found[key] for key in sorted(found)]


def _normal(name: str) -> str:
    """Return a name in one normal form: systems encode accents in two ways."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _nothing(named: Named) -> AuraVaeError:
    """Return why a name stands for no file: it is missing, of another kind, or an empty folder."""
    if named.pattern:
        held = instead(named.text, (*PICTURES, *TARS))
        return InputImageError(
            f"{named.text}: no pictures and no tars there" + (f": {held}" if held else "")
        )
    if is_remote(named.text) or not os.path.exists(named.text):
        return _missing(named.text)
    kind = kind_of_file(Path(named.text))
    if kind is None or kind.is_picture:
        kinds = "pictures and tars are known by their suffixes, such as .jpg or .tar"
        return MissingInputError(f"{named.text}: {kinds}")
    return MissingInputError(f"{named.text}: {kind}")


def _missing(name: str) -> MissingInputError:
    return MissingInputError(f"{name}: cannot be read: {os.strerror(errno.ENOENT)}")


def stem(key: str) -> str:
    """Return a file's key without its suffix, which a picture and its companions share."""
    return key.rpartition(".")[0]


def _with_remote_folders(named: Named) -> Named:
    """Return the same, but take a URL that does not look like a file's for a folder's."""
    is_file = named.pattern or not is_remote(named.text) or is_wanted(named.text)
    return named if is_file else folder(named.text)


def _find(
    named: Named,
    listings: Listings,
    beside: dict[str, dict[str, list[str]]],
    passed_over: Counter[str] | None,
    unreadable: list[str] | None,
) -> Iterator[SourceFile]:
    """The files that one name stands for; ``listings`` remembers folders that were listed, and ``beside``
    the companions in the folders of named files.
    """
    name = named.text.rstrip("/").rpartition("/")[2]
    if named.pattern:
        listing = _listing(
            named.root, listings, passed_over if named.is_folder else None, unreadable
        )
        companions = {} if named.is_folder else _by_picture(listing)
        for entry in named.choose((file.entry for file in listing.values()), PICTURE_TAGS):
            if named.is_folder:
                yield listing[entry.name]
            elif not _is_companion(entry.name):
                yield from _with_companions(entry.name, listing, companions)
    elif is_remote(named.text):
        is_web = named.text.lower().startswith(_WEB)  # whose folders are pages, if anything
        listing = {} if is_web else _listing(named.root, listings)
        if name not in listing and is_wanted(name):
            listing[name] = _unlisted(named.root, name)
        if named.root not in beside:
            beside[named.root] = _by_picture(listing)
        yield from _with_companions(name, listing, beside[named.root])
    elif is_wanted(name):
        path = Path(named.text)
        root = str(path.parent)
        if root not in beside:
            beside[root] = _by_picture(_names_in(root))
        names = beside[root].get(_normal(stem(name)), []) if is_picture(name) else []
        listing = {n: file for n in (name, *names) if (file := _local(root, n))}
        yield from _with_companions(name, listing, beside[root])


def _unlisted(root: str, name: str) -> SourceFile:
    """Return a remote file whose folder does not list it, as most web servers list none."""
    storage = RemoteStorage(root)
    try:
        return SourceFile(root, storage.entry(name), name)
    except FileNotFoundError as error:
        place, cause = f"{storage.root}/{name}", error.__cause__
        if cause is None or getattr(cause, "status", None) == 404:
            raise _missing(place) from None
        raise MissingInputError(f"{place}: cannot be reached: {cause}") from error
    except StoreError as error:
        raise MissingInputError(str(error)) from error


def _with_companions(
    key: str, listing: Mapping[str, SourceFile], companions: Mapping[str, list[str]]
) -> Iterator[SourceFile]:
    """Yield a file, and a picture's companions, of a folder's files; none if it does not exist."""
    names = companions.get(_normal(stem(key)), []) if is_picture(key) else []
    if key in listing:
        yield from (listing[name] for name in (key, *names) if name in listing)


def _by_picture(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the companions among names by the stem that they share with a picture, in one normal form."""
    found: dict[str, list[str]] = {}
    for name in names:
        if _is_companion(name):
            found.setdefault(_normal(stem(name)), []).append(name)
    return found


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names, and of any number
    except OSError:  # it may be entered, but not listed
        return []


def _local(root: str, name: str) -> SourceFile | None:
    path = below(Path(root), name, to_write=False)
    if not os.path.isfile(path):
        return None
    status = path.stat()
    return SourceFile(root, Entry(name, status.st_size, str(status.st_mtime_ns)), name)


def _listing(
    root: str,
    listings: Listings,
    passed_over: Counter[str] | None = None,
    unreadable: list[str] | None = None,
) -> dict[str, SourceFile]:
    if root not in listings:
        entries = list(open_storage(root).entries(unreadable))
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
