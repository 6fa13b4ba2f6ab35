"""The files that a run reads, none of which it replaces, whichever result would take its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from auravae_cli.errors import OutputError
from auravae_cli.operations.inputs import Source


@dataclass(frozen=True)
class KeptInputs:
    """Files that are never replaced. They are looked up only when a result would replace a file."""

    paths: Sequence[Path] = ()

    @classmethod
    def of(cls, sources: Iterable[Source]) -> KeptInputs:
        """Return the files of a run; standard input is none."""
        return cls([source.path for source in sources if source.path is not None])

    def refuse(self, output: Path) -> None:
        """Raise OutputError if a result's place is that of an input, by any name."""
        if _identity(output) in self._identities:
            raise OutputError(
                f"{output} is an input itself: it is never overwritten; name another folder with -o"
            )

    @cached_property
    def _identities(self) -> frozenset[tuple[int, int]]:
        found = set[tuple[int, int]]()
        for path in self.paths:
            with suppress(OSError):
                found.add(_identity(path))
        return frozenset(found)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
