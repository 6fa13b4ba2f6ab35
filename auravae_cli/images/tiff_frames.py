"""Which frame of a TIFF is the picture, and whether Pillow reads it right."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from auravae_cli.errors import InputImageError

MOST_FRAMES = 4096  # that are looked at
_CFA, _LINEAR_RAW = 32803, 34892  # photometrics of camera raws
_DNG_VERSION = 50706
_BLACK_IS_ZERO, _CMYK = 1, 5
_ASSOCIATED = 1  # alpha that colours have in them


@dataclass(frozen=True)
class Frame:
    """A frame that was chosen: ``number`` from 0; none: it lies below another. What to say of it."""

    page: Any
    number: int | None
    notices: tuple[str, ...]


def choose_frame(file: Any) -> Frame:
    """The largest frame of a `tifffile.TiffFile` that is no reduced copy, the first of equals.

    Raises InputImageError for a camera's raw file: what is in it to look at is a preview.
    """
    pages = list(islice(file.pages, MOST_FRAMES))
    if not pages:
        raise InputImageError("a TIFF without a picture in it")
    below = [sub for page in pages for sub in _below(page)]
    if any(page.tags.get(_DNG_VERSION) is not None for page in pages) or any(
        page.photometric in (_CFA, _LINEAR_RAW) for page in [*pages, *below]
    ):
        raise InputImageError(
            "a camera's raw file (DNG or the like): develop it to TIFF, PNG or JPEG first"
        )
    whole = [page for page in pages if not page.is_reduced and not page.is_mask] or pages
    numbers = {id(page): number for number, page in enumerate(pages)}
    deeper = [page for page in below if not page.is_reduced and not page.is_mask]
    chosen = max([*whole, *deeper], key=_area)  # the first of equals
    number, count = numbers.get(id(chosen)), len(pages) + len(below)
    if number == 0:
        said = (f"first of {count} frames used",) if len(whole) > 1 else ()
    else:
        said = (f"largest of {count} frames used",)
    return Frame(chosen, number, said)


def is_pillows(page: Any) -> bool:
    """Whether Pillow reads a frame right: 8 bits at most, but for plain grey. Of CMYK it keeps 8."""
    bits, kind = page.bitspersample, page.sampleformat
    if isinstance(bits, tuple) or isinstance(kind, tuple):
        return False  # of more than one size
    if page.samplesperpixel == 1 and page.photometric == _BLACK_IS_ZERO and bits > 8:
        return (bits, kind) in ((16, 1), (32, 1), (32, 2), (32, 3))
    if _ASSOCIATED in page.extrasamples or page.samplesperpixel - len(page.extrasamples) == 2:
        return False
    if page.photometric == _CMYK and page.planarconfig == 1:
        return bits in (8, 16)
    return bits <= 8 and kind in (0, 1) and page.imagedepth == 1


def _below(page: Any) -> list[Any]:
    """The frames that a frame's own folder names (SubIFDs)."""
    return list(islice(page.pages, 64)) if page.subifds else []


def _area(page: Any) -> int:
    return int(page.imagewidth * page.imagelength)
