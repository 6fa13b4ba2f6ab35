"""From a picture to what the encoder takes: crop, resize and padding, on request and on record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.geometry import Padding, padding_for
from auravae_cli.imagefile import LoadedImage, Pixels, to_unit


@dataclass(frozen=True)
class Preparation:
    """What is done to an upright picture before it is encoded, in this order.

    ``crop`` cuts out (x, y, width, height); ``resize`` brings the short side to so many pixels
    (Lanczos); ``center_crop`` keeps (height, width) of the middle; ``pad`` says what fills the
    sides up to multiples of the downsampling factor: ``edge`` or ``reflect``.
    """

    crop: tuple[int, int, int, int] | None = None
    resize: int | None = None
    center_crop: tuple[int, int] | None = None
    pad: Literal["edge", "reflect"] = "edge"
    background: str = "white"

    def to_json(self) -> dict[str, Any]:
        """As it stands in a latent's header: what was asked for, without what was not."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }

    def frame(self, pixels: Pixels) -> Pixels:
        """The picture that is to be encoded, [H, W, 3]: cropped and resized, not yet padded."""
        if self.crop is not None:
            x, y, width, height = self.crop
            pixels = _cut(pixels, y, x, height, width)
        if self.resize is not None:
            pixels = _resize(pixels, self.resize)
        if self.center_crop is not None:
            height, width = self.center_crop
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            pixels = _cut(pixels, top, left, height, width)
        return pixels

    def apply(self, loaded: LoadedImage, multiple: int) -> PreparedImage:
        """Frame a picture and pad its sides to multiples of ``multiple``. Raises InputImageError."""
        pixels = self.frame(loaded.pixels)
        padding = padding_for(pixels.shape[0], pixels.shape[1], multiple)
        sides = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right))
        return PreparedImage(
            loaded, pixels, np.pad(to_unit(pixels), sides, mode=self.pad), padding, self
        )


@dataclass(frozen=True)
class PreparedImage:
    """A picture on its way to the encoder.

    ``pixels`` is what a decoded latent is to be compared with, [H, W, 3]; ``padded`` what the
    encoder takes, float32 [3, H', W'] in [-1, 1].
    """

    loaded: LoadedImage
    pixels: Pixels
    padded: NDArray[np.float32]
    padding: Padding
    preparation: Preparation


def _cut(pixels: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    if min(top, left) < 0 or top + height > pixels.shape[0] or left + width > pixels.shape[1]:
        raise InputImageError(
            f"a crop of {width} x {height} at ({left}, {top}) does not lie in the picture of "
            f"{pixels.shape[1]} x {pixels.shape[0]}"
        )
    return pixels[top : top + height, left : left + width]


def _resize(pixels: Pixels, short_side: int) -> Pixels:
    """Lanczos per channel in floating point, so that 16-bit pictures keep their depth."""
    height, width = pixels.shape[:2]
    factor = short_side / min(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    channels = [
        Image.fromarray(pixels[..., channel].astype(np.float32)).resize(
            size, Image.Resampling.LANCZOS
        )
        for channel in range(3)
    ]
    top = np.iinfo(pixels.dtype).max
    resized = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    rounded: Pixels = np.clip(np.rint(resized), 0, top).astype(pixels.dtype)
    return rounded
