"""Paths below a folder for foreign names: from manifests, records, tars, lists and imported files.

`below` is the only way to turn such a name into a path, as tests/files/test_places.py checks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from auravae_cli.errors import OutputError
from auravae_cli.files.limits import FOLDER_DEPTH
from auravae_cli.files.typed import shown

_DRIVE = re.compile(r"[A-Za-z]:")
_FILE_URL = "file://"
# Halves of UTF-16 pairs, which JSON can escape, but no file system can hold. Python gives the bytes of names
# that are not UTF-8 as U+DC80 to U+DCFF.
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def below(folder: Path, name: str | PurePath, *, to_write: bool = True) -> Path:
    """Return the path of a foreign name in a folder.

    Raises OutputError if it would leave the folder, by its spelling or, if ``to_write``, through a link.
    The folder itself may be a link, since the user named it.
    """
    text = name if isinstance(name, str) else name.as_posix()
    if reason := fault_of(text, on_windows=os.name == "nt"):
        raise OutputError(f"{shown(text)} {reason}: no file in {folder} can have this name")
    path = folder / text
    if to_write and _has_links(str(folder), text):
        home, real = os.path.realpath(folder), os.path.realpath(path.parent)
        if not Path(real).is_relative_to(home):
            raise OutputError(
                f"{path}: a link leads out of {folder} to {real}, and nothing outside the named folder is "
                "touched: name that folder, or one for the results with -o"
            )
    return path


def _has_links(folder: str, name: str) -> bool:
    """Return whether a folder in a name may be a link; this avoids the cost of resolving most names."""
    while "/" in name:
        part, _, name = name.partition("/")
        folder = f"{folder}/{part}"
        if os.path.islink(folder) or os.name == "nt":  # Windows has links other than symbolic ones  # noqa: PTH114
            return True
    return False


def is_remote(location: str) -> bool:
    """Return whether a location is a URL that is not a local path."""
    return "://" in location and not location.lower().startswith("file://")


def local_name(name: str) -> str:
    """Return the path that a ``file://`` URL means, and any other name as it is.

    >>> local_name("file:///a%20b"), local_name("a%20b"), local_name("s3://a/b")
    ('/a b', 'a%20b', 's3://a/b')
    """
    if not name.lower().startswith(_FILE_URL):
        return name
    from urllib.request import url2pathname  # 20 ms, for names that few have

    path = re.sub(r"^localhost(?=/)", "", name[len(_FILE_URL) :])
    meant = url2pathname(path)
    return path if os.path.lexists(path) and not os.path.lexists(meant) else meant


def fault_of(name: str, *, on_windows: bool = True) -> str:
    """Return why a name is not that of a file below a folder; empty if it is.

    With ``on_windows``, the name must also be valid there, since stores move between machines.

    >>> fault_of("a/b.c"), fault_of("a/../b"), fault_of(""), fault_of("C:a")
    ('', 'leads out of its folder', 'is empty', 'starts with a drive')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts:
        return "is empty"
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts or (on_windows and not all(part.strip(". ") for part in parts)):
        return "leads out of its folder"  # Windows reads ".. ." as ".."
    if on_windows and _DRIVE.match(parts[0]):
        return "starts with a drive"
    if "\0" in name or _HALF.search(name) or (on_windows and "\\" in name):
        return "has a backslash, NUL or half a character (a surrogate) in it"
    reason = FOLDER_DEPTH.excess(len(parts) - 1)
    return reason and f"lies in {reason}"


def safe_name(name: str) -> str:
    """Return a valid name below a folder, for a name that may not be one.

    >>> safe_name("/../a/./b.c"), safe_name(".."), safe_name("C:\\\\a\\\\b")
    ('a/b.c', 'latent', 'C_/a/b')
    """
    parts = _HALF.sub("_", name.replace("\\", "/").replace("\0", "_")).split("/")
    safe = "/".join(part for part in parts if part.strip(". "))
    return (f"{safe[0]}_{safe[2:]}" if _DRIVE.match(safe) else safe) or "latent"
