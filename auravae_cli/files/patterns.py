"""Patterns of names: ``photos/*/[ab]*.png``, ``**`` for any number of folders, and a shell's braces."""

from __future__ import annotations

import glob
import os
import re
from fnmatch import fnmatchcase


def split_pattern(pattern: str, *, is_local: bool = False) -> tuple[str, list[str]]:
    """Return the folder before the first wildcard, and the remaining parts.

    Brackets in the name of an existing folder, if it ``is_local``, are not wildcards.

    >>> split_pattern("a/b/*/c.png"), split_pattern("*.png"), split_pattern("/**")
    (('a/b', ['*', 'c.png']), ('.', ['*.png']), ('/', ['**']))
    """
    parts = pattern.rstrip("/").split("/")
    magic = [number for number, part in enumerate(parts) if glob.has_magic(part)]
    first = magic.pop(0)
    while is_local and magic and os.path.isdir("/".join(parts[: first + 1])):
        first = magic.pop(0)
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
    """Expand ``a{00..02}.tar`` and ``a{x,y}.tar`` like bash, nested too; other braces are kept.

    >>> expand_braces("a{08..10}.{tar,txt}")[:3], expand_braces("{a}")
    (['a08.tar', 'a08.txt', 'a09.tar'], ['{a}'])
    >>> expand_braces("{0..10..5}{c..a}")[:4], expand_braces("{9,{10..11}}")
    (['0c', '0b', '0a', '5c'], ['9', '10', '11'])
    """
    for opening in (match.start() for match in re.finditer(r"\{", text)):
        parts, end = _parts(text, opening + 1)
        if len(parts) > 1:
            choices = [choice for part in parts for choice in expand_braces(part)]
        else:
            choices = _range(parts[0]) if parts else []
        if choices:
            behind = expand_braces(text[end:])
            return [f"{text[:opening]}{choice}{more}" for choice in choices for more in behind]
    return [text]


def _parts(text: str, start: int) -> tuple[list[str], int]:
    """Split at the commas up to the closing brace; return the parts and where it ends; no parts if it is missing."""
    parts, depth, begin = list[str](), 0, start
    for place in range(start, len(text)):
        character = text[place]
        if depth == 0 and character in ",}":
            parts.append(text[begin:place])
            begin = place + 1
            if character == "}":
                return parts, begin
        depth += {"{": 1, "}": -1}.get(character, 0)
    return [], start


def _range(text: str) -> list[str]:
    """Expand ``1..9`` or ``a..c``, with or without a step; return nothing if the text is no range."""
    number = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?", text)
    letter = re.fullmatch(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d+))?", text)
    match = number or letter
    if match is None:
        return []
    first, last = (int(end) if number else ord(end) for end in match.groups()[:2])
    step = abs(int(match[3] or 1)) or 1
    way = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    if letter:
        return [chr(code) for code in way]
    is_padded = any(re.match(r"-?0\d", end) for end in match.groups()[:2])
    width = max(map(len, match.groups()[:2])) if is_padded else 0
    return [f"{n:0{width}d}" for n in way]
