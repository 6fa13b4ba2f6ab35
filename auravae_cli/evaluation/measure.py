"""Measure one model on some pictures: every number that is measured per picture.

::

    picture --E--> latent --stored--> decoded: PSNR, SSIM, MS-SSIM
                     |          |--> noise added, decoded: PSNR
                     |          '--> flipped, decoded: see `flipmeasures`
                     '--> stored in other types, decoded: PSNR

Encodes and decodes are shared: one of each per picture, and four and eleven with sweeps and flips.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.evaluation.equivariance import Encoded, measure_flips
from auravae_cli.images.metrics import psnr, similarity
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import LoadedImage, Pixels, from_unit, to_8_bit
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32, STORED_DTYPES, StoredDtype
from auravae_cli.latents.sums import LatentSums
from auravae_cli.model.codec import Codec, add_noise

NOISE = (0.05, 0.1, 0.2, 0.3)
INT8 = "int8"
STORAGE_TYPES = (FLOAT32.name, FLOAT16.name, BFLOAT16.name, INT8)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MeasureOptions:
    """How to prepare pictures and store latents, and the levels of noise (as ``--noise``)."""

    preparation: Preparation = Preparation()
    stored_dtype: StoredDtype = FLOAT16
    noise: tuple[float, ...] = NOISE
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """A picture to measure, and whether to measure flips and sweeps on it."""

    name: str
    image: LoadedImage
    flips: bool = True
    sweeps: bool = True


@dataclass(frozen=True)
class Measured:
    """The numbers of a picture as JSON types, and the 8-bit pictures behind them."""

    row: dict[str, Any]
    original: Pixels
    reconstruction: Pixels


def how_computed(codec: Codec, options: MeasureOptions) -> dict[str, Any]:
    """Return what numbers depend on besides the model's weights and the picture, as JSON types."""
    return {
        "device": codec.device.partition(":")[0],
        "compute_dtype": codec.compute_dtype,
        "engine": codec.engine,
        "symmetry": codec.symmetry,
        "posterior": codec.posterior,
        "stored_dtype": options.stored_dtype.name,
        "preparation": options.preparation.to_json(),
    }


def measure(codec: Codec, subjects: Sequence[Subject], options: MeasureOptions) -> list[Measured]:
    """Measure pictures of one prepared size. Raises InputImageError, ComputeError."""
    factor = codec.space.downsampling_factor
    images = [options.preparation.apply(subject.image, factor) for subject in subjects]
    started = time.perf_counter()
    latents: Floats = codec.encode(np.stack([image.padded for image in images]))
    encoded = time.perf_counter()
    files = [
        codec.store(latent, image, options.stored_dtype, None)
        for latent, image in zip(latents, images, strict=True)
    ]
    decoded = codec.decode_finite(np.stack([file.to_float32() for file in files]))
    seconds = {
        "encode": (encoded - started) / len(images),
        "decode": (time.perf_counter() - encoded) / len(images),
    }
    items = [Encoded(*parts) for parts in zip(images, latents, files, decoded, strict=True)]
    measured = [_quality(codec, item, seconds) for item in items]
    for subject, found in zip(subjects, measured, strict=True):
        found.row["picture"] = subject.name
    flipped = [i for i, subject in enumerate(subjects) if subject.flips]
    if flipped:
        numbers = measure_flips(codec, [items[i] for i in flipped])
        for i, flips in zip(flipped, numbers, strict=True):
            measured[i].row["flips"] = flips
    swept = [i for i, subject in enumerate(subjects) if subject.sweeps]
    if swept:
        originals = [measured[i].original for i in swept]
        chosen = [items[i] for i in swept]
        noise = _noise_sweep(codec, chosen, originals, options)
        storage = _storage_sweep(codec, chosen, originals)
        for n, i in enumerate(swept):
            measured[i].row.update(noise=noise[n], storage=storage[n])
    return measured


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


def _quality(codec: Codec, item: Encoded, seconds: dict[str, float]) -> Measured:
    original = to_8_bit(item.image.pixels)
    reconstruction = _picture(item, item.decoded)
    found = similarity(reconstruction, original)
    row = {
        "sha256": item.image.loaded.sha256,
        "image_size": list(original.shape[:2]),
        "latent_shape": list(item.latent.shape),
        "psnr": decibels(reconstruction, original),
        "ssim": found[0],
        "ms_ssim": found[1],
        "lpips": None,
        "noise": None,
        "storage": None,
        "flips": None,
        "moments": LatentSums.of(item.latent, codec.space.clamp).to_text(),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }
    return Measured(row, original, reconstruction)


def _noise_sweep(
    codec: Codec, items: list[Encoded], originals: list[Pixels], options: MeasureOptions
) -> list[dict[str, Any]]:
    """Return PSNR at each level of noise: ``{"0.05": dB, ...}``; level 0 is the plain decode."""
    batch = np.stack([item.stored.to_float32() for item in items])
    curves: list[dict[str, Any]] = [{} for _ in items]
    for level in (0.0, *options.noise):
        images = (
            codec.decode_finite(add_noise(batch, level, options.seed))
            if level
            else [item.decoded for item in items]
        )
        for curve, item, image, original in zip(curves, items, images, originals, strict=True):
            curve[f"{level:g}"] = decibels(_picture(item, image), original)
    return curves


def _storage_sweep(
    codec: Codec, items: list[Encoded], originals: list[Pixels]
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
                "psnr": decibels(_picture(item, image), original),
                "bytes": stored_bytes(name, item.latent.shape),
            }
    return tables


def _as(name: str, latent: Floats) -> Floats:
    """Return a latent after storing it in a type."""
    if name == INT8:
        return quantise(latent)
    dtype = STORED_DTYPES[name]
    return dtype.to_float32(dtype.from_float32(latent))


def _picture(item: Encoded, image: Floats) -> Pixels:
    """Return a decode as the 8-bit picture of the exact size."""
    record = item.stored.records[0]
    return from_unit(image[:, *record.padding.inner(*record.image_size)])


def decibels(image: Pixels, reference: Pixels) -> float | None:
    """Return PSNR, or None if the pictures are equal."""
    value = psnr(image, reference)
    return value if math.isfinite(value) else None
