"""Patterns of names: ``photos/*/[ab]*.png``, ``**`` for any number of folders, and a shell's braces."""

from __future__ import annotations

import glob
import os
import re
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Return the folder before the first wildcard, and the remaining parts.

    >>> split_pattern("a/b/*/c.png"), split_pattern("*.png"), split_pattern("/**")
    (('a/b', ['*', 'c.png']), ('.', ['*.png']), ('/', ['**']))
    """
    parts = pattern.rstrip("/").split("/")
    first = [glob.has_magic(part) for part in parts].index(True)
    return "/".join(parts[:first]) or "/" * pattern.startswith("/") or ".", parts[first:]


def matches(name: list[str], pattern: list[str]) -> bool:
    """Return whether the parts of a name match those of a pattern.

    >>> matches(["a", "b", "c.png"], ["**", "*.png"]), matches(["c.png"], ["**", "*.jpg"])
    (True, False)
    """
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(matches(name[n:], pattern[1:]) for n in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and matches(name[1:], pattern[1:])


def leads_to(folder: list[str], pattern: list[str]) -> bool:
    """Return whether something in a folder, or below it, can match a pattern.

    >>> leads_to(["a"], ["*", "c.png"]), leads_to(["a", "b"], ["*", "c.png"])
    (True, False)
    """
    if not folder or not pattern or pattern[0] == "**":
        return bool(pattern)
    is_inner = len(pattern) > 1 and fnmatchcase(folder[0], pattern[0])
    return is_inner and leads_to(folder[1:], pattern[1:])


def expand_braces(text: str) -> list[str]:
    """Expand ``a{00..02}.tar`` and ``a{x,y}.tar`` like a shell; other braces are kept.

    >>> expand_braces("a{08..10}.{tar,txt}")[:3], expand_braces("{a}")
    (['a08.tar', 'a08.txt', 'a09.tar'], ['{a}'])
    """
    pieces: list[list[str]] = []
    for part in re.split(r"(\{\d+\.\.\d+\}|\{[^{}]*,[^{}]*\})", text):
        numbers = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
        if numbers:
            first, last = numbers[1], numbers[2]
            width = len(first) if first.startswith("0") or len(first) == len(last) else 0
            pieces.append([f"{n:0{width}d}" for n in range(int(first), int(last) + 1)])
        elif part.startswith("{") and "," in part:
            pieces.append(part[1:-1].split(","))
        else:
            pieces.append([part])
    return ["".join(choice) for choice in product(*pieces)]


def stands(path: Path | str) -> bool:
    """Return whether the path exists. If that cannot be told (the name is too long, or a folder cannot be
    entered), return False: writing there will raise the error.
    """
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for some of these
