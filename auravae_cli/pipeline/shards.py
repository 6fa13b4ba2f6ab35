"""From what the user names to input shards: tars as they are, loose pictures dealt out by name.

A tar is a WebDataset shard: its members up to the first dot of their names are one sample, as in
``000123.jpg``, ``000123.txt``, ``000123.json``. Loose pictures have such companions beside them.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from auravae_cli.errors import InputImageError
from auravae_cli.storage import Entry, is_remote, open_storage
from auravae_cli.suffixes import PICTURES

TARS = (".tar", ".tar.gz", ".tgz")
COMPANIONS = (".txt", ".caption", ".json", ".cls")
KEPT = frozenset(COMPANIONS) | PICTURES


@dataclass(frozen=True)
class SourceFile:
    """A file to read: the root of its storage, and what the storage says of it.

    ``key`` names it within the data set.
    """

    root: str
    entry: Entry
    key: str


@dataclass(frozen=True)
class InputShard:
    """What one shard of a store is made from: a tar, or loose files in the order of their keys."""

    name: str
    files: tuple[SourceFile, ...]
    is_tar: bool

    @property
    def size(self) -> int:
        """The bytes to be read."""
        return sum(file.entry.size for file in self.files)


def find_files(arguments: Iterable[str]) -> list[SourceFile]:
    """The pictures, their companions, and the tars that the arguments name, each once, by key.

    An argument is a file, a folder (all that lies below it), a pattern, or a URL of any of these;
    ``{00000..00099}`` and ``{a,b}`` are expanded as a shell does.

    Raises:
        InputImageError: nothing is there, or two files have one key.
    """
    names = [name for argument in arguments for name in _expand_braces(argument)]
    listings: dict[str, list[SourceFile]] = {}
    found = [list(_find(name, listings)) for name in names]
    several = sum(len(files) > 1 for files in found) > 1
    by_key: dict[str, SourceFile] = {}
    for name, files in zip(names, found, strict=True):
        if not files:
            raise InputImageError(f"{name}: no pictures and no tars there")
        folder = name.rstrip("/").rpartition("/")[2]
        for file in files:
            key = f"{folder}/{file.key}" if several and len(files) > 1 else file.key
            other = by_key.setdefault(key, SourceFile(file.root, file.entry, key))
            if (other.root, other.entry.name) != (file.root, file.entry.name):
                raise InputImageError(
                    f"{other.root}/{other.entry.name} and {file.root}/{file.entry.name} would both be "
                    f"{key!r} in the store; name the folder above them"
                )
    return [by_key[key] for key in sorted(by_key)]


def is_tar(name: str) -> bool:
    """Whether a name is that of a tar."""
    return name.lower().endswith(TARS)


def count_file_shards(files: list[SourceFile], shard_size: int) -> int:
    """Into how many shards to deal loose pictures."""
    pictures = sum(Path(file.key).suffix.lower() in PICTURES for file in files)
    return max(1, -(-pictures // shard_size))


def make_shards(files: list[SourceFile], num_file_shards: int) -> list[InputShard]:
    """The input shards, in the order of their names.

    Loose files go to the shard that the hash of their key says, so that one picture more changes
    one shard alone.

    Raises:
        InputImageError: two tars would give the same shard.
    """
    shards: dict[str, InputShard] = {}
    loose: defaultdict[int, list[SourceFile]] = defaultdict(list)
    for file in files:
        if is_tar(file.key):
            name = re.sub(r"\.(tar|tar\.gz|tgz)$", "", file.key, flags=re.IGNORECASE)
            if name in shards:
                raise InputImageError(f"{file.key}: another tar makes shard {name!r} already")
            shards[name] = InputShard(name, (file,), True)
        else:
            digest = hashlib.sha256(file.key.rpartition(".")[0].encode()).digest()
            loose[int.from_bytes(digest[:8], "big") % num_file_shards].append(file)
    for index, members in sorted(loose.items()):
        if any(Path(file.key).suffix.lower() in PICTURES for file in members):
            name = f"files-{index:05d}"
            shards[name] = InputShard(name, tuple(members), False)
    return [shards[name] for name in sorted(shards)]


def _find(name: str, listings: dict[str, list[SourceFile]]) -> Iterator[SourceFile]:
    """The files that one name stands for; ``listings`` remembers folders that were listed."""
    parts = name.rstrip("/").split("/")
    magic = [glob.has_magic(part) for part in parts]
    if any(magic) and (is_remote(name) or not Path(name).exists()):
        first = magic.index(True)
        root, pattern = "/".join(parts[:first]) or "/" * name.startswith("/") or ".", parts[first:]
        for file in _below(root, listings):
            if _matches(file.key, pattern):
                yield file
    elif is_remote(name) and (is_tar(name) or Path(name).suffix.lower() in KEPT):
        yield from _single(name, _below("/".join(parts[:-1]), listings))
    elif is_remote(name) or Path(name).is_dir():
        yield from _below(name, listings)
    elif Path(name).is_file():
        yield from _single(name, list(_beside(Path(name))))


def _single(name: str, listing: list[SourceFile]) -> Iterator[SourceFile]:
    """A file, and a picture's companions, out of a folder's files."""
    wanted = name.rpartition("/")[2]
    companions = set() if is_tar(wanted) else {Path(wanted).stem + kind for kind in COMPANIONS}
    if any(file.key == wanted for file in listing):
        yield from (file for file in listing if file.key in companions | {wanted})


def _beside(path: Path) -> Iterator[SourceFile]:
    for file in (path, *(path.with_suffix(kind) for kind in COMPANIONS)):
        if file.is_file():
            status = file.stat()
            entry = Entry(file.name, status.st_size, str(status.st_mtime_ns))
            yield SourceFile(str(path.parent), entry, file.name)


def _below(root: str, listings: dict[str, list[SourceFile]]) -> list[SourceFile]:
    if root not in listings:
        listings[root] = [
            SourceFile(root, entry, entry.name)
            for entry in open_storage(root).entries()
            if is_tar(entry.name) or Path(entry.name).suffix.lower() in KEPT
        ]
    return listings[root]


def _matches(key: str, pattern: list[str]) -> bool:
    """``*`` stays within a folder, ``**`` does not."""
    deep = "**" in pattern
    if not deep and key.count("/") != len(pattern) - 1:
        return False
    return fnmatchcase(key, "/".join(pattern).replace("**/", "*"))


def _expand_braces(text: str) -> list[str]:
    """``a{00..02}.tar`` and ``a{x,y}.tar`` as a shell expands them; other braces stay."""
    if not is_remote(text) and Path(text).exists():
        return [text]
    pieces: list[list[str]] = []
    for part in re.split(r"(\{\d+\.\.\d+\}|\{[^{}]*,[^{}]*\})", text):
        numbers = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
        if numbers:
            first, last = numbers[1], numbers[2]
            width = len(first) if first.startswith("0") or len(first) == len(last) else 0
            pieces.append([f"{n:0{width}d}" for n in range(int(first), int(last) + 1)])
        elif part.startswith("{") and "," in part:
            pieces.append(part[1:-1].split(","))
        else:
            pieces.append([part])
    return ["".join(choice) for choice in product(*pieces)]
