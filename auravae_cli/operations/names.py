"""The one resolver of inputs: what the names on a command line mean, local and remote.

`inputs` turns them into sources of single files, `sources` into the files of a dataset.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from auravae_cli.errors import UsageError
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.patterns import expand_braces, leads_to, matches, split_pattern
from auravae_cli.files.places import is_remote
from auravae_cli.operations.results import results

if TYPE_CHECKING:
    from auravae_cli.files.storage import Entry

Listed = TypeVar("Listed", "Entry", "LocalFile")
_EVERYTHING = ("**",)
_LOOKED_AT = 20  # files of a folder without inputs, to say what it holds
_NONE_HELD = "there is none in what was named"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below a folder by its name, or an error in its place."""

    name: str
    is_readable: bool = True


@dataclass(frozen=True)
class Named:
    """What one name stands for: a file, or those below ``root`` that match ``pattern``.

    A folder's pattern is ``**``, a file's is empty.
    """

    text: str
    root: str
    pattern: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether everything below the root is meant."""
        return self.pattern == _EVERYTHING

    def choose(self, listed: Iterable[Listed], result_tags: frozenset[str]) -> list[Listed]:
        """Choose the files that are meant, of those listed below the root.

        `results` of earlier runs with one of ``result_tags`` are excluded, unless the pattern spells the tag.
        """
        files, pattern = list(listed), list(self.pattern)
        tags = frozenset(tag for tag in result_tags if tag not in pattern[-1])
        ours = results((file.name for file in files), tags)
        return [
            file
            for file in files
            if file.name not in ours and (self.is_folder or matches(file.name.split("/"), pattern))
        ]

    def list_local(self) -> list[LocalFile]:
        """List the files below a local root that the pattern can reach, in any order."""
        from auravae_cli.files.walk import files_below

        pattern = list(self.pattern)
        return files_below(
            self.root,
            lambda name, _: LocalFile(name),
            lambda name, _: LocalFile(name, is_readable=False),
            lambda name: leads_to(name.split("/"), pattern),
        )


def none_found(names: Sequence[str], wanted: Collection[str], expected: str) -> UsageError:
    """Return the error for names that stand for no file with one of the suffixes ``wanted``.

    It says what is there instead, if that is known.
    """
    held = next(filter(None, (instead(name, wanted) for name in names)), None)
    return UsageError(
        f"no input: {held or (_NONE_HELD if names else 'none was named')}; expected {expected}"
    )


def instead(name: str, wanted: Collection[str] = ()) -> str | None:
    """Return what a folder is or holds that none of the suffixes ``wanted`` means; None if that is not known."""
    if is_remote(name):
        return None
    path = Path(name)
    found = [path]
    with suppress(OSError):
        found += islice(sorted(path.iterdir()), _LOOKED_AT)
    for place in found:
        kind = None if place.suffix.lower() in wanted else kind_of_file(place)
        if kind is not None:
            return f"{place} is {kind}"
    return None


def resolve(arguments: Iterable[str]) -> list[Named]:
    """Return what the arguments stand for, after expanding braces that the shell did not expand.

    The name of an existing file or folder means that, whatever wildcards and braces are in it. A URL
    without wildcards is a file's, since its contents are not known here.
    """
    return [_stand_for(name) for argument in arguments for name in _spelled(argument)]


def _spelled(argument: str) -> list[str]:
    return (
        [argument]
        if not is_remote(argument) and os.path.exists(argument)
        else expand_braces(argument)
    )


def _stand_for(name: str) -> Named:
    remote = is_remote(name)
    if not remote and os.path.isdir(name):
        return folder(name)
    if glob.has_magic(name) and (remote or not os.path.exists(name)):
        root, pattern = split_pattern(name, is_local=not remote)
        return Named(name, root, tuple(pattern))
    return Named(name, name.rstrip("/").rpartition("/")[0] if remote else str(Path(name).parent))


def folder(name: str) -> Named:
    """Return everything below a folder or a URL."""
    return Named(name, name, _EVERYTHING)
