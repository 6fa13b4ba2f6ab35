"""Sizes and padding: integers only. Sizes are always (height, width)."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from auravae_cli.group import GroupElement


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
        """Where the padding lies after ``g``: a mirror exchanges opposite sides.

        >>> from auravae_cli.group import H
        >>> Padding(left=3, right=4).act(H)
        Padding(left=4, right=3, top=0, bottom=0)
        """
        left, right = (self.right, self.left) if g.horizontal else (self.left, self.right)
        top, bottom = (self.bottom, self.top) if g.vertical else (self.top, self.bottom)
        return Padding(left, right, top, bottom)

    def inner(self, height: int, width: int) -> tuple[slice, slice]:
        """The slices that take an unpadded picture of ``height`` x ``width`` out of a padded one."""
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) of a padded picture."""
        return height + self.top + self.bottom, width + self.left + self.right

    def as_tuple(self) -> tuple[int, int, int, int]:
        """(left, right, top, bottom)."""
        return astuple(self)


def padding_for(height: int, width: int, multiple: int) -> Padding:
    """The least padding that makes both sides multiples of ``multiple``, halved between sides.

    An odd pixel goes to the right or the bottom.
    """
    rows, columns = -height % multiple, -width % multiple
    return Padding(
        left=columns // 2, right=columns - columns // 2, top=rows // 2, bottom=rows - rows // 2
    )
