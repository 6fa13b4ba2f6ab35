"""From a command's arguments to the files that it works on."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.errors import AuraVaeError, InputImageError
from auravae_cli.filebytes import read_file, read_within
from auravae_cli.files.limits import FILE_BYTES

STREAM = "-"


@dataclass(frozen=True)
class Source:
    """One input: a file, or standard input.

    ``relative`` is its place below the folder that was named, or its bare name: where its result
    goes in an output folder. ``row`` is the place of a latent in a shard.
    """

    path: Path | None
    relative: Path
    row: int | None = None

    @property
    def name(self) -> str:
        """As the user wrote it; a row of a shard with its number."""
        if self.row is not None:
            return f"{self.path}[{self.row}]"
        return STREAM if self.path is None else str(self.path)

    def read_bytes(self, error: type[AuraVaeError]) -> bytes:
        """The whole content; ``error`` is raised where it cannot be read, or is too large."""
        if self.path is None:
            return read_within(sys.stdin.buffer, FILE_BYTES, error)
        return read_file(self.path, FILE_BYTES, error)


def collect(
    arguments: Iterable[str], suffixes: Iterable[str], result_tags: frozenset[str] = frozenset()
) -> list[Source]:
    """The inputs that the arguments name, each file once, in order.

    A folder stands for the files below it with one of ``suffixes``, but for hidden ones and for
    results of earlier runs, whose stems end in one of ``result_tags``; a pattern
    that the shell left alone for the files that it matches; ``-`` for standard input. Any other
    name, and a folder below that cannot be listed, stands for itself: reading it gives the error.
    """
    known = frozenset(suffixes)
    found: dict[str | None, Source] = {}
    for argument in arguments:
        for source in _expand(argument, known, result_tags):
            found.setdefault(os.path.abspath(source.path) if source.path else None, source)  # noqa: PTH100 - keeps links
    return list(found.values())


def read_list(name: str) -> list[str]:
    """The lines of a list of inputs (``-``: standard input). Raises InputImageError."""
    try:
        text = sys.stdin.read() if name == STREAM else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputImageError(f"the list {name} cannot be read: {error}") from error
    if "\0" in text:
        raise InputImageError(f"the list {name} holds NUL characters: expected one name a line")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _expand(argument: str, suffixes: frozenset[str], result_tags: frozenset[str]) -> list[Source]:
    path = Path(argument)
    if argument == STREAM:
        return [Source(None, Path("stdin"))]
    if os.path.isdir(path):  # noqa: PTH112 - never raises, as Path.is_dir does for a name too long
        unlisted: list[str] = []
        names = [
            name
            for name in _names_below(str(path), "", unlisted)
            if os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122 - and no Path for each
            and (not result_tags or Path(Path(name).stem).suffix not in result_tags)
        ]
        return [
            Source(path / name, Path(name or path.resolve().name))
            for name in sorted(names + unlisted, key=lambda name: name.split("/"))
        ]
    if glob.has_magic(argument) and not os.path.exists(path):  # noqa: PTH110 - likewise
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207 - absolute too
        if matches:
            return [Source(match, Path(match.name)) for match in matches if match.is_file()]
    return [Source(path, Path(path.name))]


def _names_below(folder: str, prefix: str, unlisted: list[str]) -> Iterator[str]:
    """The files below a folder, but hidden ones; ``unlisted`` gets the folders that it may not list.

    Links to folders are followed, but not round in circles, as in a `LocalStorage`.
    """
    try:
        found = list(os.scandir(folder))
    except PermissionError:
        unlisted.append(prefix.rstrip("/"))
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not (
                entry.is_symlink() and Path(folder).resolve().is_relative_to(Path(entry).resolve())
            ):
                yield from _names_below(entry.path, f"{prefix}{entry.name}/", unlisted)
        elif entry.is_file():
            yield prefix + entry.name
