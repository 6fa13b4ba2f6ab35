"""Convert colours with an embedded ICC profile to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

Convert = Callable[[Image.Image], Image.Image]
_UNUSABLE = (ImageCms.PyCMSError, OSError, ValueError)


def by_profile(mode: str, profile: bytes | None, notices: list[str]) -> tuple[str, Convert | None]:
    """Return the mode to convert ``mode`` to first, and what then converts it to sRGB.

    None if colours are unchanged; with a notice if that is because the profile is unusable.
    """
    if not profile or is_srgb(profile):
        return mode, None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode in ("1", "L", "P"):  # a grey picture can have an RGB profile, but not vice versa
            mode = "L" if cast(Any, source.profile).xcolor_space.strip() == "GRAY" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        ImageCms.applyTransform(Image.new(mode, (1, 1)), transform)
    except _UNUSABLE as error:
        notices.append(f"colour profile ignored, sRGB assumed ({error})")
        return mode, None
    notices.append(f"colours converted from {_name(source)} to sRGB")
    return mode, lambda image: cast(Image.Image, ImageCms.applyTransform(image, transform))


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    return ImageCms.getProfileDescription(profile).strip() or "embedded profile"


@lru_cache(64)
def is_srgb(profile: bytes) -> bool:
    """Return whether colours stay the same within an 8-bit step; names tell little (there is "linear sRGB")."""
    steps = range(0, 256, 15)
    mixed = np.array(list(product(steps, steps, steps)), np.uint8)[None]
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.profileToProfile(
            Image.fromarray(mixed), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except _UNUSABLE:
        return False
    return found is not None and bool(np.abs(np.asarray(found).astype(int) - mixed).max() <= 1)
