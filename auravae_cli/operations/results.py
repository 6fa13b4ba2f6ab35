"""Which files of a folder are results of earlier runs beside their sources.

A name alone is not enough: ``hero.sheet.png`` can be anybody's picture. It is a result if the picture
or the latent ``hero`` is beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from auravae_cli.operations.suffixes import FLIP_TAGS, LATENTS, PICTURE_TAGS, PICTURES

_ALL_TAGS = PICTURE_TAGS | FLIP_TAGS
_SOURCES = PICTURES | LATENTS


def results(names: Iterable[str], tags: frozenset[str]) -> frozenset[str]:
    """Return the names, of those below a folder, of results whose stem ends in one of ``tags``.

    >>> sorted(results(["a.png", "a.sheet.png", "b.sheet.png", "a.h.decoded.png"], PICTURE_TAGS))
    ['a.h.decoded.png', 'a.sheet.png']
    """
    tagged: list[tuple[str, str]] = []
    stems: set[str] = set()
    for name in names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - and no Path for each
        if suffix.lower() in _SOURCES:
            stems.add(stem)
            if os.path.splitext(stem)[1] in tags:  # noqa: PTH122
                tagged.append((name, stem))
    return frozenset(name for name, stem in tagged if stems & set(_sources(stem)))


def _sources(stem: str) -> Iterable[str]:
    """Yield the stems of possible sources of a result, with fewer and fewer of our tags."""
    while True:
        stem, tag = os.path.splitext(stem)  # noqa: PTH122
        if tag not in _ALL_TAGS:
            return
        yield stem
