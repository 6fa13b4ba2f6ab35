"""Turn a command's arguments into the single files that it works on."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from auravae_cli.defaults import STREAM
from auravae_cli.errors import AuraVaeError, InputImageError, MissingInputError, UsageError
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import read_file, read_within
from auravae_cli.files.places import is_remote, local_name
from auravae_cli.files.text import decode_text, split_lines
from auravae_cli.operations.names import Named, resolve
from auravae_cli.operations.suffixes import count_passed_over


@dataclass(frozen=True)
class Source:
    """One input: a file, or standard input.

    ``relative`` is its path below the named folder, or its bare name, which determines the result's place
    in an output folder. ``row`` is the index of a latent in a shard.
    """

    path: Path | None
    relative: Path
    row: int | None = None

    @property
    def name(self) -> str:
        """The name as the user wrote it; for a row of a shard, with its number."""
        if self.row is not None:
            return f"{self.path}[{self.row}]"
        return STREAM if self.path is None else str(self.path)

    @property
    def folder(self) -> Path:
        """The named folder, or the folder of a named file, which results beside it must not leave."""
        assert self.path is not None
        parents, depth = self.path.parents, len(self.relative.parts)
        return (
            parents[depth - 1] if self.row is None and depth <= len(parents) else self.path.parent
        )

    def read_bytes(self, error: type[AuraVaeError]) -> bytes:
        """Return the whole content. Raises ``error`` if it cannot be read or is too large."""
        if self.path is None:
            try:
                return read_within(sys.stdin.buffer, FILE_BYTES, error)
            except OSError as reason:
                raise error(f"cannot be read: {reason.strerror or reason}") from reason
        return read_file(self.path, FILE_BYTES, error)


def collect(
    arguments: Iterable[str],
    suffixes: Iterable[str],
    result_tags: frozenset[str] = frozenset(),
    passed_over: Counter[str] | None = None,
) -> list[Source]:
    """Return the inputs that the arguments name, each file once, in order.

    A folder stands for the files below it with one of ``suffixes``, but for hidden ones; a pattern
    that the shell left alone for what it matches; both but for `results` of earlier runs with one of
    ``result_tags``. ``-`` is standard input. Any other name, and a folder below that cannot be
    listed, stands for itself: reading it gives the error. ``passed_over`` counts, by suffix, the
    files of folders that look like pictures or tars, but are not inputs.
    """
    known = frozenset(suffixes)
    found: dict[str | None, Source] = {}
    for named in resolve(arguments):
        for source in _sources(named, known, result_tags, passed_over):
            found.setdefault(os.path.abspath(source.path) if source.path else None, source)  # noqa: PTH100 - keeps links
    return list(found.values())


def read_list(name: str) -> list[str]:
    """Return the lines of a list of inputs (``-``: standard input). Raises MissingInputError."""
    try:
        text = decode_text(_read_list(name))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MissingInputError(f"the list {name} cannot be read: {reason}") from error
    if "\0" in text:
        raise MissingInputError(f"the list {name} holds NUL characters: expected one name a line")
    return [local_name(line.strip()) for line in split_lines(text) if line.strip()]


def _read_list(name: str) -> bytes:
    if name == STREAM:
        return read_within(sys.stdin.buffer, FILE_BYTES, InputImageError)
    with Path(local_name(name)).open("rb") as file:
        return read_within(file, FILE_BYTES, InputImageError)


def _sources(
    named: Named,
    suffixes: frozenset[str],
    result_tags: frozenset[str],
    passed_over: Counter[str] | None,
) -> list[Source]:
    path = Path(named.text)
    if is_remote(named.text):
        raise UsageError(
            f"{named.text}: a URL: only stores and tars are read from URLs; download the file first"
        )
    if named.text == STREAM:
        return [Source(None, Path("stdin"))]
    files = named.choose(named.list_local(), result_tags) if named.pattern else []
    if named.is_folder:
        if passed_over is not None:
            count_passed_over((f.name for f in files if f.is_readable), suffixes, passed_over)
        names = [f.name for f in files if not f.is_readable or _has_suffix(f.name, suffixes)]
        return [
            Source(path / name, Path(name or path.resolve().name))
            for name in sorted(names, key=lambda name: name.split("/"))
        ]
    matching = [Path(named.root, file.name) for file in files if file.is_readable]
    return [Source(match, Path(match.name)) for match in sorted(matching)] or [
        Source(path, Path(path.name))
    ]


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122 - and no Path for each
