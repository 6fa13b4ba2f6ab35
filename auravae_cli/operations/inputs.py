"""From a command's arguments to the files that it works on."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.errors import AuraVaeError, InputImageError
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file, read_within
from auravae_cli.files.patterns import expand_braces, matches, split_pattern, stands
from auravae_cli.files.storage import is_remote
from auravae_cli.files.walk import files_below
from auravae_cli.operations.results import results

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

    @property
    def folder(self) -> Path:
        """The folder that was named, or that of a file that was: results beside it stay in there."""
        assert self.path is not None
        parents, depth = self.path.parents, len(self.relative.parts)
        return (
            parents[depth - 1] if self.row is None and depth <= len(parents) else self.path.parent
        )

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
    `results` of earlier runs with one of ``result_tags``; a pattern, and braces, that the shell left
    alone for what it would make of them; ``-`` for standard input. Any other name, and a folder
    below that cannot be listed, stands for itself: reading it gives the error.
    """
    known = frozenset(suffixes)
    found: dict[str | None, Source] = {}
    names = [name for argument in arguments for name in named(argument)]
    for name in names:
        for source in _expand(name, known, result_tags):
            found.setdefault(os.path.abspath(source.path) if source.path else None, source)  # noqa: PTH100 - keeps links
    return list(found.values())


def named(argument: str) -> list[str]:
    """The names that an argument spells with braces; itself where something has that very name."""
    return [argument] if not is_remote(argument) and stands(argument) else expand_braces(argument)


def read_list(name: str) -> list[str]:
    """The lines of a list of inputs (``-``: standard input). Raises InputImageError."""
    try:
        text = sys.stdin.read() if name == STREAM else _read_text(Path(name))
    except (OSError, UnicodeDecodeError) as error:
        raise InputImageError(f"the list {name} cannot be read: {error}") from error
    if "\0" in text:
        raise InputImageError(f"the list {name} holds NUL characters: expected one name a line")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        return read_within(file, FILE_BYTES, InputImageError).decode()


def _expand(argument: str, suffixes: frozenset[str], result_tags: frozenset[str]) -> list[Source]:
    path = Path(argument)
    if argument == STREAM:
        return [Source(None, Path("stdin"))]
    if os.path.isdir(path):  # noqa: PTH112 - never raises, as Path.is_dir does for a name too long
        found = files_below(str(path), lambda name, _: (name, True), lambda name, _: (name, False))
        ours = results((name for name, is_file in found if is_file), result_tags)
        names = [
            name
            for name, is_file in found
            if not is_file or (name not in ours and _has_suffix(name, suffixes))
        ]
        return [
            Source(path / name, Path(name or path.resolve().name))
            for name in sorted(names, key=lambda name: name.split("/"))
        ]
    if glob.has_magic(argument) and not stands(path):
        found_paths = [Path(match) for match in sorted(_matching(argument))]
        if found_paths:
            return [Source(match, Path(match.name)) for match in found_paths if match.is_file()]
    return [Source(path, Path(path.name))]


def _matching(pattern: str) -> list[str]:
    """What a pattern matches. `glob` follows links round in a ring, forty times, so ``**`` is ours."""
    root, parts = split_pattern(pattern)
    if "**" not in parts:
        return glob.glob(pattern)  # noqa: PTH207 - absolute too
    names = files_below(root, lambda name, _: name, lambda name, _: "")
    return [f"{root}/{name}" for name in names if name and matches(name.split("/"), parts)]


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122 - and no Path for each
