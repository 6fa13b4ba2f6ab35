"""Convert decoded samples to opaque sRGB."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from auravae_cli.errors import InputImageError
from auravae_cli.images.alpha import bands, composite
from auravae_cli.images.colour import Colours
from auravae_cli.images.extra import imagecodecs
from auravae_cli.images.icc import by_profile

Pixels = NDArray[Any]  # [H, W, 3], uint8 or uint16


@dataclass(frozen=True)
class Samples:
    """The output of a decoder: uint8 or uint16 [H, W, C], where black is 0 and white the type's maximum.

    C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha); ``is_multiplied``: colours are
    premultiplied by alpha.
    """

    values: NDArray[Any]
    colours: Colours = field(default_factory=Colours)
    is_multiplied: bool = False


def to_srgb(samples: Samples, background: str, notices: list[str]) -> Pixels:
    """Return the opaque pixels [H, W, 3], of the samples' type."""
    values = samples.values
    count = 1 if values.shape[2] <= 2 else 3
    has_alpha = values.shape[2] in (2, 4)
    top = np.iinfo(values.dtype).max
    is_clear = has_alpha and bool((values[..., -1] < top).any())
    convert = _conversion(samples.colours, count == 1, values.dtype, notices)
    pixels = np.empty((*values.shape[:2], 3), values.dtype)
    for rows in bands(values.shape):
        part = values[rows, :, :count]
        alpha = values[rows, :, -1:] if is_clear else None
        is_multiplied = samples.is_multiplied and alpha is not None
        if is_multiplied and convert is not None:
            part, is_multiplied = _divided(part, alpha), False
        if convert is not None:
            part = convert(part)
        if alpha is not None:
            part = composite(
                np.broadcast_to(part, (*part.shape[:2], 3)), alpha, background, is_multiplied
            )
        pixels[rows] = part
    if is_clear:
        notices.append(f"alpha composited on {background}")
    return pixels


def widened(values: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Scale samples of 9 to 16 bits to the full 16 bits: white stays white."""
    top = 2**bits - 1
    if bits == 16:
        return values.astype(np.uint16, copy=False)
    levels = np.rint(np.arange(2**bits) * (65535 / top)).astype(np.uint16)
    return np.asarray(levels[np.minimum(values, top)])


def levels(values: NDArray[Any], notices: list[str]) -> NDArray[Any]:
    """Convert samples of any type => uint8 or uint16. Floating-point numbers go from 0 (black) to 1.

    Raises InputImageError for values that have no colour.
    """
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise InputImageError("floating-point picture with values beyond 0 to 1")
        notices.append("floating-point values taken for levels of 0 to 1")
        return np.asarray(np.rint(values * np.float64(65535)).astype(np.uint16))
    if values.min() < 0 or values.max() > 65535:
        raise InputImageError(
            f"{8 * values.dtype.itemsize}-bit integer picture with values beyond 0 to 65535"
        )
    return values.astype(np.uint16)


def _divided(colours: NDArray[Any], alpha: Any) -> NDArray[Any]:
    top = np.iinfo(colours.dtype).max
    divided = colours.astype(np.float64) * top / np.maximum(alpha, 1)
    return np.asarray(np.rint(np.minimum(divided, top)).astype(colours.dtype))


def _conversion(colours: Colours, is_grey: bool, dtype: Any, notices: list[str]) -> Any:
    """Return what converts [h, w, 1 or 3] of the type; None if colours are unchanged."""
    if colours.icc is None:
        change = colours.change(is_grey)
        if change is not None:
            notices.append(f"colours converted from {colours.name} to sRGB")
        return change
    mode, convert = by_profile("L" if is_grey else "RGB", colours.icc, notices)
    if convert is None:
        return None
    if dtype == np.uint8:
        return lambda part: np.asarray(convert(_image(part, mode)))
    codecs = imagecodecs()
    if codecs is None:
        notices.append("16-bit colours reduced to 8 bits to convert the ICC profile")
        return lambda part: (
            np.asarray(convert(_image(np.rint(part / 257).astype(np.uint8), mode))).astype(
                np.uint16
            )
            * 257
        )
    srgb = codecs.cms_profile("srgb")

    def exactly(part: NDArray[Any]) -> NDArray[Any]:
        part = part[..., 0] if mode == "L" else np.broadcast_to(part, (*part.shape[:2], 3))
        found: NDArray[Any] = codecs.cms_transform(
            np.ascontiguousarray(part),
            colours.icc,
            srgb,
            colorspace="gray" if mode == "L" else "rgb",
            outcolorspace="rgb",
            intent=0,
        )
        return found

    return exactly


def _image(part: NDArray[Any], mode: str) -> Image.Image:
    if mode == "L":
        return Image.fromarray(np.ascontiguousarray(part[..., 0]))
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3))))
