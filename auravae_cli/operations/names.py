"""The one resolver of inputs: what the names on a command line stand for, local and remote.

`inputs` makes sources of single files from it, `sources` the files of a dataset.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from auravae_cli.files.patterns import expand_braces, leads_to, matches, split_pattern, stands
from auravae_cli.files.storage import Entry, is_remote
from auravae_cli.files.walk import files_below
from auravae_cli.operations.results import results

Listed = TypeVar("Listed", Entry, "LocalFile")
_EVERYTHING = ("**",)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below a folder by its name, or what there could not be looked at."""

    name: str
    is_readable: bool = True


@dataclass(frozen=True)
class Named:
    """What one name stands for: a file, or those below ``root`` that ``pattern`` matches.

    Such files are as many as there are now. A folder's pattern is ``**``, a file's is empty.
    """

    text: str
    root: str
    pattern: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether everything below the root is meant."""
        return self.pattern == _EVERYTHING

    def choose(self, listed: Iterable[Listed], result_tags: frozenset[str]) -> list[Listed]:
        """The files that are meant, of those that were listed below the root.

        `results` of earlier runs with one of ``result_tags`` are none of them, unless the pattern
        spells the tag.
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
        """What lies below a local root where the pattern leads, in any order."""
        pattern = list(self.pattern)
        return files_below(
            self.root,
            lambda name, _: LocalFile(name),
            lambda name, _: LocalFile(name, is_readable=False),
            lambda name: leads_to(name.split("/"), pattern),
        )


def resolve(arguments: Iterable[str]) -> list[Named]:
    """What the arguments stand for, after braces that the shell left alone are expanded.

    A name that something has is that thing's, whatever wildcards and braces are in it. A URL without
    wildcards is a file's: what lies behind it is not known here.
    """
    return [_stand_for(name) for argument in arguments for name in _spelled(argument)]


def _spelled(argument: str) -> list[str]:
    return [argument] if not is_remote(argument) and stands(argument) else expand_braces(argument)


def _stand_for(name: str) -> Named:
    remote = is_remote(name)
    if not remote and os.path.isdir(name):  # noqa: PTH112 - never raises
        return folder(name)
    if glob.has_magic(name) and (remote or not stands(name)):
        root, pattern = split_pattern(name)
        return Named(name, root, tuple(pattern))
    return Named(name, name.rstrip("/").rpartition("/")[0] if remote else str(Path(name).parent))


def folder(name: str) -> Named:
    """Everything below a folder or a URL."""
    return Named(name, name, _EVERYTHING)
