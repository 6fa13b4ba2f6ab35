"""The suffixes of files that commands look for in folders. The content decides what a file is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".qoi", ".dib", ".mpo", ".apng", ".avifs")
    + (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".heic", ".heif", ".hif", ".jxl")
)
# Kinds of pictures that are not read; in a folder or a tar they are counted, in a line.
UNREAD = frozenset(
    [
        ".svg",
        ".svgz",
        ".pdf",
        ".eps",
        ".ai",
        ".psd",
        ".psb",
        ".xcf",
        ".exr",
        ".hdr",
        ".ico",
        ".icns",
        ".dds",
        ".jxr",
        ".wdp",
        ".bpg",
        ".pcx",
        ".sgi",
        ".pam",
        ".xpm",
        ".xbm",
        ".cur",
        ".wmf",
        ".emf",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
        ".raf",
        ".pef",
        ".srw",
        ".x3f",
        ".raw",
    ]
)
TARS = (".tar", ".tar.gz", ".tgz")
_OTHER_TARS = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
LATENTS = frozenset((".safetensors",))

# The tags of results beside their inputs. In a folder, such files are results, not inputs.
DECODED, ROUNDTRIP, SHEET = ".decoded", ".roundtrip", ".sheet"
PICTURE_TAGS = frozenset((DECODED, ROUNDTRIP, SHEET))
FLIP_TAGS = frozenset((".h", ".v", ".hv"))


def is_tar(name: str) -> bool:
    """Return whether a name is a tar's."""
    return name.lower().endswith(TARS)


def is_picture(key: str) -> bool:
    """Return whether a name is a picture's."""
    return Path(key).suffix.lower() in PICTURES


def looks_like_a_picture(name: str) -> bool:
    """Return whether a name is that of a picture, or of a tar of them, of a kind that is not read.

    >>> [looks_like_a_picture(name) for name in ("a/b.PSD", "a.tar.xz", "a.png", "a.txt")]
    [True, True, False, False]
    """
    lowered = name.lower()
    return os.path.splitext(lowered)[1] in UNREAD or lowered.endswith(_OTHER_TARS)  # noqa: PTH122 - and no Path for each


def count_passed_over(
    names: Iterable[str], wanted: Collection[str], passed_over: Counter[str]
) -> None:
    """Count, by suffix, the names of pictures and tars that do not end in one of ``wanted``."""
    for name in names:
        lowered = name.lower()
        suffix = os.path.splitext(lowered)[1]  # noqa: PTH122
        is_known = suffix in PICTURES or is_tar(name) or looks_like_a_picture(name)
        if is_known and not lowered.endswith(tuple(wanted)):
            tars = [kind for kind in (*TARS, *_OTHER_TARS) if lowered.endswith(kind)]
            passed_over[tars[0] if tars else suffix] += 1
