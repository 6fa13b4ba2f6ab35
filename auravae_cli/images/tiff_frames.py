"""Choose the frame of a TIFF that is the picture, and tell whether Pillow reads it correctly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from auravae_cli.errors import InputImageError

MOST_FRAMES = 4096  # that are inspected
_CFA, _LINEAR_RAW = 32803, 34892  # photometrics of camera raws
_DNG_VERSION = 50706
_BLACK_IS_ZERO, _CMYK = 1, 5
_ASSOCIATED = 1  # premultiplied alpha


@dataclass(frozen=True)
class Frame:
    """A chosen frame: ``number`` counts from 0; none if it is below another. Also notices about it."""

    page: Any
    number: int | None
    notices: tuple[str, ...]


def choose_frame(file: Any) -> Frame:
    """Choose the largest frame of a `tifffile.TiffFile` that is not a reduced copy, the first of equals.

    Raises InputImageError for a camera's raw file, in which only a preview could be shown.
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
    """Return whether Pillow reads a frame correctly: at most 8 bits, except plain grey. Of CMYK it keeps 8."""
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
    """Return the frames that a frame's own directory names (SubIFDs)."""
    return list(islice(page.pages, 64)) if page.subifds else []


def _area(page: Any) -> int:
    return int(page.imagewidth * page.imagelength)
