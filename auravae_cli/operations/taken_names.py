"""Names of results, each given once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from auravae_cli.files.spelling import fold, tells_apart


class TakenNames:
    """The names that a run has given in a folder. Costs about 100 bytes a name, however long.

    Twice that where it has capitals: what it is without them is remembered, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[int] = set()
        self._folded: set[int] = set()  # of those names that folding changes

    def take(self, name: str) -> bool:
        """Whether the name is new, to the folder, too; it is taken from now on."""
        folded = fold(name)
        number, common = _digest(name), _digest(folded)
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


def _digest(name: str) -> int:
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
