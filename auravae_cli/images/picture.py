"""An opened picture, for any reader."""

from __future__ import annotations

from typing import Protocol

from auravae_cli.images.samples import Pixels


class Picture(Protocol):
    """A picture whose header has been read, but not its samples.

    ``size`` is the (height, width) of `pixels`: opaque sRGB [H, W, 3], as the samples are stored, or
    upright already, if it ``stands_upright``.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def stands_upright(self) -> bool: ...

    def pixels(self, background: str, notices: list[str]) -> Pixels: ...

    def orientation(self, notices: list[str]) -> int:
        """Return the EXIF orientation in the file, 1 to 8. Call it after reading the pixels."""
        ...
