"""Measurements of the latent space other than flips, noise and storage types.

`evaluation.transforms` has scaling, turns and shifts, `evaluation.spectra` the spectra. Here are the drift
over repeated round trips, which people see who edit a picture again and again; the border, where padding
is seen (|z| of the outermost cells over that of cells 2 and more from the edge); and crops: training
frameworks cut windows out of latents, which a decoder then sees without their surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.evaluation.equivariance import Encoded
from auravae_cli.evaluation.spectra import latent_spectrum, picture_spectrum
from auravae_cli.evaluation.transforms import measure_transforms, psnr_of_floats
from auravae_cli.images.grid import LUMA
from auravae_cli.images.metrics import psnr_or_none
from auravae_cli.images.prepare import pad
from auravae_cli.images.read import Pixels, from_unit, to_8_bit
from auravae_cli.model.codec import Codec

ROUND_TRIPS = (1, 2, 5, 10)
EDGE, CROP = 2, 16  # cells: the border, and the side of a crop
LEAST_SPECTRUM = 8  # cells a side

Floats = NDArray[np.float32]


def measure_space(codec: Codec, items: Sequence[Encoded]) -> list[dict[str, Any]]:
    """Return the numbers of each picture, all of one size, as JSON types. Raises ComputeError."""
    transforms = measure_transforms(
        codec,
        np.stack([item.image.padded for item in items]),
        np.stack([item.latent for item in items]),
    )
    drifts = _drift(codec, items)
    losses = _crop_losses(codec, items)
    return [
        {
            "transforms": transforms[i],
            "drift": drifts[i],
            "crop_loss": losses[i],
            "border": _border(item.latent),
            "spectra": _spectra(item),
        }
        for i, item in enumerate(items)
    ]


def picture_of(item: Encoded, image: Floats) -> Pixels:
    """Return a decode [3, H', W'] as the 8-bit picture of the exact size."""
    record = item.stored.records[0]
    return from_unit(image[:, *record.padding.inner(*record.image_size)])


def _drift(codec: Codec, items: Sequence[Encoded]) -> list[dict[str, float | None]]:
    """Return PSNR to the original after repeated round trips through 8-bit pictures and stored latents."""
    originals = [to_8_bit(item.image.pixels) for item in items]
    pictures = [picture_of(item, item.decoded) for item in items]
    rows: list[dict[str, float | None]] = [{} for _ in items]
    for count in range(1, max(ROUND_TRIPS) + 1):
        if count > 1:
            padded = np.stack(
                [
                    pad(picture, item.image.padding, item.image.preparation.pad)
                    for picture, item in zip(pictures, items, strict=True)
                ]
            )
            dtype = items[0].stored.dtype
            latents = dtype.to_float32(dtype.from_float32(codec.encode_unit(padded)))
            decoded = codec.decode_finite(latents)
            pictures = [picture_of(item, d) for item, d in zip(items, decoded, strict=True)]
        if count in ROUND_TRIPS:
            for row, picture, original in zip(rows, pictures, originals, strict=True):
                row[str(count)] = psnr_or_none(picture, original)
    return rows


def _crop_losses(codec: Codec, items: Sequence[Encoded]) -> list[float | None]:
    """Return the PSNR in dB lost by decoding 16 x 16 cells from the middle by themselves, 2 cells from
    their edge; None for pictures that are too small or come back exactly."""
    height, width = items[0].latent.shape[1:]
    if min(height, width) < CROP + 2 * EDGE:
        return [None for _ in items]
    factor = codec.space.downsampling_factor
    top, left = (height - CROP) // 2, (width - CROP) // 2
    cells = np.stack([item.stored.to_float32() for item in items])
    cut = np.ascontiguousarray(cells[:, :, top : top + CROP, left : left + CROP])
    losses: list[float | None] = []
    for item, part in zip(items, codec.decode_finite(cut), strict=True):
        inner = slice(factor * EDGE, factor * (CROP - EDGE))
        rows, columns = (
            slice(factor * (start + EDGE), factor * (start + CROP - EDGE)) for start in (top, left)
        )
        expected = item.image.padded[:, rows, columns]
        alone = psnr_of_floats(part[:, inner, inner], expected)
        whole = psnr_of_floats(item.decoded[:, rows, columns], expected)
        losses.append(None if alone is None or whole is None else whole - alone)
    return losses


def _border(latent: Floats) -> float | None:
    """Return mean |z| of the outermost cells over that of the inside; None if there is no inside."""
    if min(latent.shape[1:]) <= 2 * EDGE:
        return None
    values = np.abs(latent.astype(np.float64))
    outermost = np.ones(latent.shape[1:], bool)
    outermost[1:-1, 1:-1] = False
    inside = float(values[:, EDGE:-EDGE, EDGE:-EDGE].mean())
    return float(values[:, outermost].mean()) / inside if inside else None


def _spectra(item: Encoded) -> dict[str, list[float | None]] | None:
    """Return the spectra of the latent, and of luma of the original and of the reconstruction."""
    if min(item.latent.shape[1:]) < LEAST_SPECTRUM:
        return None
    return {
        "latent": latent_spectrum(item.latent),
        "original": picture_spectrum(_luma(item.image.padded)),
        "reconstruction": picture_spectrum(_luma(np.clip(item.decoded, -1, 1))),
    }


def _luma(image: Floats) -> NDArray[np.float64]:
    """Return luma of [3, H, W] in [-1, 1], in levels of 255."""
    luma: NDArray[np.float64] = np.tensordot(LUMA, image.astype(np.float64), 1) * 127.5
    return luma


def response_spectrum(item: Encoded, noisy: Floats) -> list[float | None] | None:
    """Return the spectrum of what noise on the latent changes in luma of the decode; None where there is
    no `_spectra`."""
    if min(item.latent.shape[1:]) < LEAST_SPECTRUM:
        return None
    return picture_spectrum(_luma(noisy) - _luma(item.decoded))
