"""Noise on latents, and their storage types: what each level or type costs in PSNR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.evaluation.equivariance import Encoded
from auravae_cli.evaluation.latent_space import picture_of, response_spectrum
from auravae_cli.images.metrics import psnr_or_none
from auravae_cli.images.read import Pixels
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32, STORED_DTYPES
from auravae_cli.model.codec import Codec, add_noise

INT8 = "int8"
STORAGE_TYPES = (FLOAT32.name, FLOAT16.name, BFLOAT16.name, INT8)
RESPONSE_LEVEL = 0.1  # of noise: the response is that to the level nearest to it

Floats = NDArray[np.float32]


def noise_sweep(
    codec: Codec,
    items: Sequence[Encoded],
    originals: Sequence[Pixels],
    levels: Sequence[float],
    seed: int,
) -> tuple[list[dict[str, float | None]], list[list[float | None] | None]]:
    """Return PSNR at each level of noise, ``{"0.05": dB, ...}`` where level 0 is the plain decode, and the
    spectrum of the response (see `response_spectrum`)."""
    batch = np.stack([item.stored.to_float32() for item in items])
    curves: list[dict[str, float | None]] = [{} for _ in items]
    responses: list[list[float | None] | None] = [None for _ in items]
    heard = min(levels, key=lambda level: abs(level - RESPONSE_LEVEL), default=None)
    for level in (0.0, *levels):
        images = [item.decoded for item in items]
        if level:
            images = list(codec.decode_finite(add_noise(batch, level, seed)))
        for curve, item, image, original in zip(curves, items, images, originals, strict=True):
            curve[f"{level:g}"] = psnr_or_none(picture_of(item, image), original)
        if level == heard:
            responses = [
                response_spectrum(i, image) for i, image in zip(items, images, strict=True)
            ]
    return curves, responses


def storage_sweep(
    codec: Codec, items: Sequence[Encoded], originals: Sequence[Pixels]
) -> list[dict[str, Any]]:
    """Return PSNR and bytes of each storage type: ``{"int8": {"psnr": dB, "bytes": n}, ...}``."""
    tables: list[dict[str, Any]] = [{} for _ in items]
    for name in STORAGE_TYPES:
        if name == items[0].stored.dtype.name:
            images = [item.decoded for item in items]
        else:
            images = list(codec.decode_finite(np.stack([_as(name, z.latent) for z in items])))
        for table, item, image, original in zip(tables, items, images, originals, strict=True):
            table[name] = {
                "psnr": psnr_or_none(picture_of(item, image), original),
                "bytes": stored_bytes(name, item.latent.shape),
            }
    return tables


def _as(name: str, latent: Floats) -> Floats:
    """Return a latent after storing it in a type."""
    if name == INT8:
        return quantise(latent)
    dtype = STORED_DTYPES[name]
    return dtype.to_float32(dtype.from_float32(latent))


def quantise(latent: Floats) -> Floats:
    """Round a latent [C, h, w] through symmetric int8: one float32 scale per channel, no offset.

    Integers are from -127 to 127, so flips act on the stored values exactly.
    """
    scale = np.abs(latent).max(axis=(1, 2), keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    integers = np.rint(latent / scale).astype(np.int8)
    quantised: Floats = integers * scale
    return quantised


def stored_bytes(name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a latent's values [C, h, w] in a storage type, including any scales."""
    values = math.prod(shape)
    if name == INT8:
        return values + 4 * shape[0]
    return values * (4 if name == FLOAT32.name else 2)
