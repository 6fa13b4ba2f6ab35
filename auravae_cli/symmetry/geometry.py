"""Sizes and padding, in integers. Sizes are always (height, width)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from auravae_cli.symmetry.group import GroupElement


@dataclass(frozen=True)
class Padding:
    """Pixels added on each side before encoding and cropped away after decoding.

    >>> pad = padding_for(321, 481, multiple=8)
    >>> pad
    Padding(left=3, right=4, top=3, bottom=4)
    """

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def act(self, g: GroupElement) -> Padding:
        """Return the padding after ``g``: a mirror exchanges opposite sides.

        >>> from auravae_cli.symmetry.group import H
        >>> Padding(left=3, right=4).act(H)
        Padding(left=4, right=3, top=0, bottom=0)
        """
        left, right = (self.right, self.left) if g.horizontal else (self.left, self.right)
        top, bottom = (self.bottom, self.top) if g.vertical else (self.top, self.bottom)
        return Padding(left, right, top, bottom)

    def inner(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the slices that take an unpadded picture of ``height`` x ``width`` out of a padded one."""
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of a padded picture."""
        return height + self.top + self.bottom, width + self.left + self.right

    def as_tuple(self) -> tuple[int, int, int, int]:
        """Return (left, right, top, bottom)."""
        return self.left, self.right, self.top, self.bottom


def padding_for(height: int, width: int, multiple: int) -> Padding:
    """Return the smallest padding that makes both sides multiples of ``multiple``, split evenly.

    An odd pixel goes to the right or the bottom.
    """
    rows, columns = -height % multiple, -width % multiple
    return Padding(
        left=columns // 2, right=columns - columns // 2, top=rows // 2, bottom=rows - rows // 2
    )


@dataclass(frozen=True)
class Box:
    """A part of a picture, in its pixels; sides may be fractional."""

    left: float
    top: float
    right: float
    bottom: float

    def act(self, g: GroupElement, height: float, width: float) -> Box:
        """Return the part after ``g`` acts on a picture of ``height`` x ``width``."""
        left, right = (
            (width - self.right, width - self.left) if g.horizontal else (self.left, self.right)
        )
        top, bottom = (
            (height - self.bottom, height - self.top) if g.vertical else (self.top, self.bottom)
        )
        return Box(left, top, right, bottom)

    def moved(self, x: float, y: float) -> Box:
        """Return the same part in a picture whose corner is at (x, y)."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def as_tuple(self) -> tuple[float, float, float, float]:
        """Return (left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class Buckets:
    """Aspect-ratio buckets: a few sizes of about ``side`` x ``side`` pixels, and never more.

    Both sides are multiples of ``step``, and neither is longer than ``max_ratio`` times the other.
    There is always a square.

    >>> Buckets(256, step=64).sizes
    ((192, 320), (256, 256), (320, 192))
    >>> Buckets(256).nearest(768, 1024)
    (192, 320)
    """

    side: int
    step: int = 64
    max_ratio: float = 2.0

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All (height, width), from wide to tall: the widest that fits for each height, and vice versa."""
        budget = self.side * self.side
        square = self.side // self.step * self.step
        found = {(square, square)}
        for short in range(self.step, self.side + 1, self.step):
            long = budget // short // self.step * self.step
            if long <= self.max_ratio * short:
                found |= {(short, long), (long, short)}
        return tuple(sorted(found))

    def nearest(self, height: int, width: int) -> tuple[int, int]:
        """Return the size with the nearest aspect ratio; on a tie, the larger."""
        return min(
            self.sizes,
            key=lambda size: (
                round(abs(math.log(size[0] * width / (size[1] * height))), 9),
                -size[0] * size[1],
                size,
            ),
        )

    def scales(self, height: int, width: int) -> tuple[float, float]:
        """Return by how much height and width are scaled before the crop to the nearest size."""
        size = self.nearest(height, width)
        scale = max(size[0] / height, size[1] / width)
        return scale, scale
