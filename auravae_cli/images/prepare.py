"""Prepare a picture for the encoder: crop, resize and pad, as requested and recorded.

Every step except a crop by coordinates commutes with flips, exactly: it is applied to one
representative of a picture's four mirror images, and flipped back. So an odd pixel of padding, or of a
centred crop, is on the mirrored side of the mirrored picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.read import LoadedImage, Pixels, to_unit
from auravae_cli.machine.memory import shortage
from auravae_cli.symmetry.action import act_on_pixels
from auravae_cli.symmetry.geometry import Box, Buckets, Padding, padding_for
from auravae_cli.symmetry.group import GROUP, GroupElement

if TYPE_CHECKING:
    from auravae_cli.images.trainer_buckets import TrainerBuckets


@dataclass(frozen=True)
class Preparation:
    """What is done to an upright picture before it is encoded, in this order.

    ``crop`` cuts out (x, y, width, height); ``resize`` resizes the short side to a number of pixels, by
    ``resample`` (None: Lanczos); ``center_crop`` keeps the central (height, width); ``buckets``, instead of
    both, resizes the picture to the bucket with the nearest aspect ratio, ours or a trainer's, and cuts the
    excess evenly from opposite sides; ``pad`` is how sides are padded to multiples of the downsampling factor: ``edge`` or
    ``reflect``.
    """

    crop: tuple[int, int, int, int] | None = None
    resize: int | None = None
    center_crop: tuple[int, int] | None = None
    pad: Literal["edge", "reflect"] = "edge"
    background: str = "white"
    buckets: Buckets | TrainerBuckets | None = None
    resample: Literal["lanczos", "bilinear", "bicubic"] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the settings that were given, as in a latent's header."""
        return {key: _plain(value) for key, value in asdict(self).items() if value is not None}

    def frame(self, pixels: Pixels) -> Pixels:
        """Return the picture to encode, [H, W, 3]: cropped and resized, not yet padded."""
        return self._frame(pixels)[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that `frame` gives for an upright picture's. Raises InputImageError."""
        if self.crop is not None:
            left, top, crop_width, crop_height = self.crop
            _check_cut((height, width), top, left, crop_height, crop_width)
            height, width = crop_height, crop_width
        if self.buckets is not None:
            height, width = self.buckets.nearest(height, width)
        if self.resize is not None:
            height, width = _resized(height, width, self.resize)
        if self.center_crop is not None:
            rows, columns = self.center_crop
            _check_cut((height, width), (height - rows) // 2, (width - columns) // 2, rows, columns)
            height, width = rows, columns
        return height, width

    def padded_size(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """Return the (height, width) that `apply` gives for an upright picture's. Raises InputImageError."""
        size = self.size(height, width)
        return padding_for(*size, multiple).padded(*size)

    def apply(self, loaded: LoadedImage, multiple: int) -> PreparedImage:
        """Frame a picture and pad its sides to multiples of ``multiple``. Raises InputImageError."""
        pixels, g, box = self._frame(loaded.pixels)
        padding = padding_for(pixels.shape[0], pixels.shape[1], multiple).act(g)
        padded = pad(pixels, padding, self.pad)
        return PreparedImage(loaded, pixels, padded, padding, box, self)

    def _frame(self, pixels: Pixels) -> tuple[Pixels, GroupElement, Box]:
        """Return the framed picture, the element of `representative`, and the part that it shows."""
        left, top = 0, 0
        if self.crop is not None:
            left, top, width, height = self.crop
            pixels = _cut(pixels, top, left, height, width)
        height, width = pixels.shape[:2]
        g = representative(pixels)
        framed, box = act_on_pixels(g, pixels), Box(0, 0, width, height)
        if self.buckets is not None:
            size = self.buckets.nearest(height, width)
            scales = self.buckets.scales(height, width)
            if scales == (1, 1):  # a trainer's that never enlarges
                framed, box = _cut_center(framed, box, *size)
            else:
                box = _cover(height, width, size, scales)
                framed = _resample(framed, size, box, self.resample)
        if self.resize is not None:
            size = _resized(height, width, self.resize)
            framed = _resample(framed, size, box, self.resample)
        if self.center_crop is not None:
            framed, box = _cut_center(framed, box, *self.center_crop)
        return act_on_pixels(g, framed), g, box.act(g, height, width).moved(left, top)


def _plain(value: Any) -> Any:
    """Return a setting as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class PreparedImage:
    """A picture ready for the encoder.

    ``pixels`` is what to compare a decoded latent with, [H, W, 3]; ``padded`` is the encoder's input,
    float32 [3, H', W'] in [-1, 1]; ``box`` is the part of the upright source that it shows.
    """

    loaded: LoadedImage
    pixels: Pixels
    padded: NDArray[np.float32]
    padding: Padding
    box: Box
    preparation: Preparation


def representative(pixels: Pixels) -> GroupElement:
    """Return the element that turns [H, W, 3] into the representative of all its mirror images.

    That is the one whose first column, and first row, is brighter than its last; on a tie the next ones
    decide, and if all are tied, the pixels themselves. So ``representative(g x) @ g == representative(x)``,
    unless a picture is its own mirror image.
    """
    across, down = _darker_first(pixels.swapaxes(0, 1)), _darker_first(pixels)
    candidates = [g for g in GROUP if across in (None, g.horizontal) and down in (None, g.vertical)]
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda g: _Rows(act_on_pixels(g, pixels)))


class _Rows:
    """A picture ordered by its bytes, reading only as many as needed."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    def __lt__(self, other: _Rows) -> bool:
        for mine, its in zip(self.pixels, other.pixels, strict=True):
            here, there = bytes(mine.tobytes()), bytes(its.tobytes())
            if here != there:
                return here < there
        return False


def _darker_first(lines: Pixels) -> bool | None:
    """Return whether the first line is darker than the last, or the next ones are; None if none is."""
    for first, last in zip(lines[: len(lines) // 2], lines[::-1], strict=False):
        if difference := int(first.sum(dtype=np.int64)) - int(last.sum(dtype=np.int64)):
            return difference < 0
    return None


def pad(pixels: Pixels, padding: Padding, mode: str) -> NDArray[np.float32]:
    """Pad [H, W, 3] by a `Preparation.pad` => float32 [3, H', W'] in [-1, 1]."""
    height, width = pixels.shape[:2]
    if mode == "reflect":
        sides = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right))
        return np.pad(to_unit(pixels), sides, mode="reflect")
    padded = np.empty((3, *padding.padded(height, width)), np.float32)
    rows, columns = padding.inner(height, width)
    to_unit(pixels, padded[:, rows, columns])
    padded[:, rows, : columns.start] = padded[:, rows, columns.start, None]
    padded[:, rows, columns.stop :] = padded[:, rows, columns.stop - 1, None]
    padded[:, : rows.start] = padded[:, rows.start, None]
    padded[:, rows.stop :] = padded[:, rows.stop - 1, None]
    return padded


def _cut(pixels: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    _check_cut((pixels.shape[0], pixels.shape[1]), top, left, height, width)
    return pixels[top : top + height, left : left + width]


def _check_cut(size: tuple[int, int], top: int, left: int, height: int, width: int) -> None:
    if min(top, left) < 0 or top + height > size[0] or left + width > size[1]:
        raise InputImageError(
            f"a crop of {width} x {height} at ({left}, {top}) does not lie in the picture of "
            f"{size[1]} x {size[0]}"
        )


def _resized(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the (height, width) whose shorter side is ``short_side``.

    Raises InputImageError if that does not fit into memory: a line of pixels would become very wide.
    """
    factor = short_side / min(height, width)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if reason := shortage(*size):
        raise InputImageError(f"resized: {reason}")
    return size


def _cut_center(pixels: Pixels, box: Box, height: int, width: int) -> tuple[Pixels, Box]:
    rows, columns = pixels.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    x, y = (box.right - box.left) / columns, (box.bottom - box.top) / rows
    part = Box(
        box.left + left * x,
        box.top + top * y,
        box.left + (left + width) * x,
        box.top + (top + height) * y,
    )
    return _cut(pixels, top, left, height, width), part


def _cover(height: int, width: int, size: tuple[int, int], scales: tuple[float, float]) -> Box:
    """Return the central part of a picture that has ``size`` after its height and width are scaled."""
    x, y = (width - size[1] / scales[1]) / 2, (height - size[0] / scales[0]) / 2
    return Box(max(0, x), max(0, y), min(width, width - x), min(height, height - y))


def _resample(pixels: Pixels, size: tuple[int, int], box: Box, kernel: str | None = None) -> Pixels:
    """Resample with a kernel that is widened where pictures shrink; 16-bit pictures, which Pillow does not support, per channel in floating point."""
    filter_ = Image.Resampling[(kernel or "lanczos").upper()]
    arguments = (size[1], size[0]), filter_, box.as_tuple()
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(*arguments))
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    resized = np.stack([np.asarray(Image.fromarray(p).resize(*arguments)) for p in planes], -1)
    rounded: Pixels = np.clip(np.rint(resized), 0, 65535).astype(pixels.dtype)
    return rounded
