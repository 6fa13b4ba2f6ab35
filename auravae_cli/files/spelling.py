"""Names that differ only in case or in how accents are encoded: some file systems do not distinguish them.

The system does not tell which do, and a folder can be on any of them, so a folder is tested.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from auravae_cli.files.leftovers import claim_file


def fold(name: str) -> str:
    """Return a key that is equal for names that some file system does not distinguish.

    >>> fold("Photo") == fold("pHOTO"), fold("\\u00e9") == fold("E\\u0301"), fold("a") == fold("b")
    (True, True, False)
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def lookalikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that share a key, each of at least two distinct names."""
    groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        groups[fold(name)][name] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def tells_apart(folder: Path) -> bool:
    """Return whether a folder, which may not exist yet, distinguishes such names.

    It is tested with a file that is removed again. If no file can be made, nothing will be written
    there either, and the result is True.
    """
    place = next((f for f in (folder, *folder.parents) if f.is_dir()), folder)
    for accented in ("\u00e9", ""):  # not every system supports every letter
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
