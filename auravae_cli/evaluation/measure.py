"""Measure one model on some pictures: every number that is measured per picture.

::

    picture --E--> latent --stored--> decoded: PSNR, SSIM, MS-SSIM, CIEDE2000, grid
                     |          |--> noise added, decoded: `sweeps`
                     |          '--> flipped, decoded: `equivariance`
                     |--> stored in other types, decoded: `sweeps`
                     '--> scaled, turned, shifted, cropped, encoded again: `latent_space`

Encodes and decodes are shared: one of each per picture, three more for flips, and about 14 and 23 for
sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.evaluation.equivariance import Encoded, measure_flips
from auravae_cli.evaluation.latent_space import measure_space, picture_of
from auravae_cli.evaluation.sweeps import noise_sweep, storage_sweep
from auravae_cli.images.colour_difference import ciede2000
from auravae_cli.images.grid import flat_grid
from auravae_cli.images.metrics import SSIM_KINDS, psnr_or_none, similarity
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import LoadedImage, Pixels, to_8_bit
from auravae_cli.latents.dtypes import FLOAT16, StoredDtype
from auravae_cli.latents.sums import LatentSums
from auravae_cli.model.codec import Codec
from auravae_cli.operations.timed_batches import Parts

NOISE = (0.05, 0.1, 0.2, 0.3)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MeasureOptions:
    """How to prepare pictures and store latents, and the levels of noise (as ``--noise``).

    ``ssim`` is one of `SSIM_KINDS`: ``gaussian``, or that of some published tables.
    """

    preparation: Preparation = Preparation()
    stored_dtype: StoredDtype = FLOAT16
    noise: tuple[float, ...] = NOISE
    seed: int = 0
    ssim: str = "gaussian"


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
    """Return what numbers depend on, apart from the model's weights and the picture, as JSON types."""
    return {
        "device": codec.device.partition(":")[0],
        "compute_dtype": codec.compute_dtype,
        "engine": codec.engine,
        "symmetry": codec.symmetry,
        "posterior": codec.posterior,
        "stored_dtype": options.stored_dtype.name,
        "preparation": options.preparation.to_json(),
        **({} if options.ssim == "gaussian" else {"ssim": options.ssim}),
    }


# How often `measure` runs each half on a picture: for its quality, for its flips, for its sweeps (and the
# decoder once more for each level of noise).
_QUALITY, _FLIPS, _SWEEPS = (1, 1), (3, 3), (13.75, 17.9)


def runs_each(flips: float, sweeps: float, levels: int) -> Parts:
    """Return how often each half runs on a picture, if these shares of all are measured with flips and sweeps."""
    encoder, decoder = (
        quality + flips * flipped + sweeps * swept
        for quality, flipped, swept in zip(_QUALITY, _FLIPS, _SWEEPS, strict=True)
    )
    return ("encoder", encoder), ("decoder", decoder + sweeps * levels)


def measure(codec: Codec, subjects: Sequence[Subject], options: MeasureOptions) -> list[Measured]:
    """Measure pictures of one prepared size. Raises InputImageError, ComputeError."""
    factor = codec.space.downsampling_factor
    images = [options.preparation.apply(subject.image, factor) for subject in subjects]
    started = time.perf_counter()
    latents: Floats = codec.encode_unit(np.stack([image.padded for image in images]))
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
    measured = [_quality(codec, item, seconds, options.ssim) for item in items]
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
        noise, responses = noise_sweep(codec, chosen, originals, options.noise, options.seed)
        storage = storage_sweep(codec, chosen, originals)
        space = measure_space(codec, chosen)
        for n, i in enumerate(swept):
            if space[n]["spectra"] is not None:
                space[n]["spectra"]["response"] = responses[n]
            measured[i].row.update(noise=noise[n], storage=storage[n], space=space[n])
    return measured


def compare(
    reconstruction: Pixels, original: Pixels, period: int, kind: str
) -> dict[str, float | None]:
    """Return the metrics of two 8-bit pictures [H, W, 3] that need no network.

    ``period`` is that of a grid, ``kind`` the `MeasureOptions.ssim`.
    """
    ssim, ms_ssim = similarity(reconstruction, original)
    if kind != "gaussian":
        ssim = SSIM_KINDS[kind](reconstruction, original)
    return {
        "psnr": psnr_or_none(reconstruction, original),
        "ssim": ssim,
        "ms_ssim": ms_ssim,
        "ciede2000": ciede2000(reconstruction, original),
        "grid": flat_grid(reconstruction, original, period),
        "lpips": None,
        "text_error": None,
    }


def _quality(codec: Codec, item: Encoded, seconds: dict[str, float], kind: str) -> Measured:
    original = to_8_bit(item.image.pixels)
    reconstruction = picture_of(item, item.decoded)
    row = {
        "sha256": item.image.loaded.sha256,
        "image_size": list(original.shape[:2]),
        "latent_shape": list(item.latent.shape),
        **compare(reconstruction, original, codec.space.downsampling_factor, kind),
        "noise": None,
        "storage": None,
        "space": None,
        "flips": None,
        "moments": LatentSums.of(item.latent, codec.space.clamp).to_text(),
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }
    return Measured(row, original, reconstruction)
