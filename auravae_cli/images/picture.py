"""An opened picture, whichever reader has opened it."""

from __future__ import annotations

from typing import Protocol

from auravae_cli.images.samples import Pixels


class Picture(Protocol):
    """A picture whose header is read and whose samples are not yet.

    ``size`` is (height, width) of what `pixels` gives: opaque sRGB [H, W, 3], as the samples lie,
    or turned already, if it ``stands_upright``.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def stands_upright(self) -> bool: ...

    def pixels(self, background: str, notices: list[str]) -> Pixels: ...

    def orientation(self, notices: list[str]) -> int:
        """The EXIF orientation that the file states, 1 to 8. Asked for after the pixels."""
        ...
