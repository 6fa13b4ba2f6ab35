"""Is text still legible? By an OCR engine, which reads the original and each reconstruction.

The engine finds the lines of text in the original, and reads each of them there and, in the same place, in the
reconstruction. The character error rate is the edit distance (Levenshtein 1966) between both readings over the
number of characters in the original's: 0 if nothing changes, 1 if nothing is left. What the engine misreads in
the original counts as what is written, so this is about change, not about truth.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from auravae_cli.errors import UsageError
from auravae_cli.images.read import Pixels

PACKAGE = "rapidocr-onnxruntime"
LEAST_CHARACTERS = 4  # of a picture: below, one letter would be a large share
_EDGE = 2  # pixels around a line, which engines read better

Box = tuple[int, int, int, int]  # left, top, right, bottom


class TextReader(Protocol):
    """An OCR engine."""

    @property
    def name(self) -> str:
        """The engine and its version."""

    def find(self, pixels: Pixels) -> list[Box]:
        """Return where lines of text are in a picture, uint8 [H, W, 3]."""

    def read(self, pixels: Pixels) -> str:
        """Return the text of a picture of one line."""


def text_errors(
    reader: TextReader, original: Pixels, reconstructions: Sequence[Pixels]
) -> list[float | None]:
    """Return the character error rate of each reconstruction; None where the original has hardly any text."""
    height, width = original.shape[:2]
    lines = []
    for left, top, right, bottom in reader.find(original):
        rows = slice(max(0, top - _EDGE), min(height, bottom + _EDGE))
        columns = slice(max(0, left - _EDGE), min(width, right + _EDGE))
        text = reader.read(original[rows, columns])
        if text:
            lines.append((rows, columns, text))
    characters = sum(len(text) for *_, text in lines)
    if characters < LEAST_CHARACTERS:
        return [None for _ in reconstructions]
    return [
        sum(edit_distance(reader.read(found[rows, columns]), text) for rows, columns, text in lines)
        / characters
        for found in reconstructions
    ]


def edit_distance(found: str, expected: str) -> int:
    """Return the least number of letters to insert, delete or replace.

    >>> edit_distance("legible", "illegible"), edit_distance("", "abc"), edit_distance("Ohm", "0hm")
    (2, 3, 1)
    """
    before = list(range(len(expected) + 1))
    for row, letter in enumerate(found, 1):
        here = [row]
        for column, other in enumerate(expected, 1):
            here.append(
                min(before[column] + 1, here[-1] + 1, before[column - 1] + (letter != other))
            )
        before = here
    return before[-1]


@dataclass(frozen=True)
class RapidOcr:
    """The engine RapidOCR, whose package holds its models."""

    engine: Any
    name: str

    def find(self, pixels: Pixels) -> list[Box]:
        """Return the boxes around lines, upright, from top to bottom."""
        found, _ = self.engine(_bgr(pixels), use_det=True, use_cls=False, use_rec=False)
        boxes = []
        for corners in found or ():
            places = np.array(corners, float)
            low, high = np.floor(places.min(0)).astype(int), np.ceil(places.max(0)).astype(int)
            boxes.append((int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1))
        return sorted(boxes, key=lambda box: (box[1], box[0]))

    def read(self, pixels: Pixels) -> str:
        """Return the text of one line; empty if there is none."""
        found, _ = self.engine(_bgr(pixels), use_det=False, use_cls=False, use_rec=True)
        return "".join(str(text) for text, *_ in found or ()).strip()


def load_reader() -> TextReader:
    """Load the OCR engine. Raises UsageError if it is not installed."""
    try:
        found = version(PACKAGE)
        engine = importlib.import_module("rapidocr_onnxruntime").RapidOCR()
    except (ImportError, PackageNotFoundError) as error:
        raise UsageError(
            f"legibility of text needs an OCR engine ({error}): pip install rapidocr-onnxruntime, which is "
            "there for Python up to 3.12",
            "text",
        ) from error
    return RapidOcr(engine, f"{PACKAGE} {found}")


def _bgr(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[..., ::-1])
