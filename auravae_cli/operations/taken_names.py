"""Unique names of results."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from auravae_cli.files.spelling import fold, tells_apart


class TakenNames:
    """The names used by a run in a folder. Costs about 100 bytes per name, however long.

    Names with capitals cost twice that, since their folded form is kept, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[int] = set()
        self._folded: set[int] = set()  # of names that folding changes

    def take(self, name: str) -> bool:
        """Take a name; return whether it was new, also to the folder."""
        folded = fold(name)
        number, common = digest_of(name), digest_of(folded)
        if number in self._taken:
            return False
        alike = common in self._folded or (folded != name and common in self._taken)
        if alike and not self._tells_apart:
            return False
        self._taken.add(number)
        if folded != name:
            self._folded.add(common)
        return True

    @cached_property
    def _tells_apart(self) -> bool:
        return tells_apart(self._folder)


def digest_of(name: str) -> int:
    """Return a number of 64 bits that stands for a name of any length."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
