"""Names that differ in case, or in how accents are written: two files here, one and the same there.

Systems do not say which, and a folder may be on any. So a folder is tried out.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from auravae_cli.files.leftovers import claim_file


def fold(name: str) -> str:
    """What names have in common that some file system takes for one.

    >>> fold("Photo") == fold("pHOTO"), fold("\\u00e9") == fold("E\\u0301"), fold("a") == fold("b")
    (True, True, False)
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """The names that have all in common, in groups of at least two, each name once."""
    groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        groups[fold(name)][name] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def tells_apart(folder: Path) -> bool:
    """Whether such names are two in a folder, or will be in one that is to be made.

    It is tried out with a file that is removed again. Where none can be made, so that nothing will
    be written either, they are.
    """
    place = next((f for f in (folder, *folder.parents) if f.is_dir()), folder)
    for accented in ("\u00e9", ""):  # not every system has every letter
        try:
            descriptor, path = claim_file(place, f"{accented}a")
        except (OSError, UnicodeError):
            continue
        try:
            others = {unicodedata.normalize("NFD", path.name), _capitals(path.name)} - {path.name}
            return not any(os.path.lexists(path.with_name(other)) for other in others)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
    return True


def _capitals(name: str) -> str:
    return "".join(letter.upper() if letter.isascii() else letter for letter in name)
