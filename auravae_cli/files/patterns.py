"""Patterns of names: ``photos/*/[ab]*.png``, and ``**`` for any folders, or none."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """The folder before the first wildcard, and the parts from there on.

    >>> split_pattern("a/b/*/c.png"), split_pattern("*.png"), split_pattern("/**")
    (('a/b', ['*', 'c.png']), ('.', ['*.png']), ('/', ['**']))
    """
    parts = pattern.rstrip("/").split("/")
    first = [glob.has_magic(part) for part in parts].index(True)
    return "/".join(parts[:first]) or "/" * pattern.startswith("/") or ".", parts[first:]


def matches(name: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a name match those of a pattern.

    >>> matches(["a", "b", "c.png"], ["**", "*.png"]), matches(["c.png"], ["**", "*.jpg"])
    (True, False)
    """
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(matches(name[n:], pattern[1:]) for n in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and matches(name[1:], pattern[1:])
