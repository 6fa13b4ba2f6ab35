"""Does the latent space move as pictures do? Scaling, a quarter turn, and a shift by half a cell.

For a transformation T that acts on pictures and latents alike, with the encoder E and the decoder D::

    encoder_error   |E(Tx) - T E(x)| / |E(Tx)|
    psnr            of D(T E(x)) against Tx, and plain_psnr that of D(E(Tx)): what moving the latent costs

Scaling (bilinear, without a filter before it) and turns by 90 degrees are those of EQ-VAE (Kouzelis et al.
2025, arXiv 2502.09509). The shift is that of AF-LDM (Zhou et al. 2025, "Alias-Free Latent Diffusion
Models", arXiv 2503.09419): a picture is moved by pixels, its latent by the fraction of a cell with the ideal,
periodic interpolation, and what comes from beyond the border is left out. The normalisation is that of
our flips; these papers publish losses and PSNR of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.model.codec import Codec

SCALES = (0.25, 0.5, 0.75)
TURN, SHIFT = "turn", "shift"
NAMES = (*(f"scale {scale:g}" for scale in SCALES), TURN, SHIFT)
_STEPS = 4  # scales are multiples of a quarter, so sides are whole numbers of 4 cells
LEAST_CELLS = 16  # a side: a quarter of that is still a picture
MARGIN = 4  # cells left out at the borders after a shift

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Moved:
    """A transformation: what T makes of pictures and of their latents, and what of both is compared."""

    pictures: Floats
    latents: Floats
    margin: int = 0


def measure_transforms(
    codec: Codec, padded: Floats, latents: Floats
) -> list[dict[str, dict[str, float | None]]]:
    """Return the numbers of each of padded pictures [B, 3, H, W], by `NAMES`; none for small pictures.

    ``latents`` are those of the pictures. Costs about five encodes and six decodes. Raises ComputeError.
    """
    factor = codec.space.downsampling_factor
    cells = [side // factor // _STEPS * _STEPS for side in padded.shape[2:]]
    rows: list[dict[str, dict[str, float | None]]] = [{} for _ in padded]
    if min(cells) < LEAST_CELLS:
        return rows
    x = np.ascontiguousarray(padded[:, :, : cells[0] * factor, : cells[1] * factor])
    z = latents if x.shape == padded.shape else codec.encode_unit(x)
    moves: list[tuple[str, Callable[[], Moved]]] = [
        (f"scale {scale:g}", lambda s=scale: Moved(bilinear(x, s), bilinear(z, s)))  # type: ignore[misc]
        for scale in SCALES
    ]
    moves.append((TURN, lambda: Moved(_turned(x), _turned(z))))
    if factor > 1:
        moves.append((SHIFT, lambda: _shifted(codec, x)))
    for name, move in moves:
        for row, numbers in zip(rows, _compare(codec, move()), strict=True):
            row[name] = numbers
    return rows


def _compare(codec: Codec, moved: Moved) -> list[dict[str, float | None]]:
    found = codec.encode_unit(moved.pictures)
    factor = codec.space.downsampling_factor
    inner = _inner(moved.margin)
    pixels = _inner(moved.margin * factor)
    plain, acted = codec.decode_finite(found), codec.decode_finite(moved.latents)
    rows = []
    for i, picture in enumerate(moved.pictures):
        difference = (found[i] - moved.latents[i])[inner].astype(np.float64)
        whole = float(np.linalg.norm(found[i][inner].astype(np.float64)))
        error = float(np.linalg.norm(difference)) / whole if whole else 0.0
        rows.append(
            {
                "encoder_error": error,
                "plain_psnr": psnr_of_floats(plain[i][pixels], picture[pixels]),
                "psnr": psnr_of_floats(acted[i][pixels], picture[pixels]),
            }
        )
    return rows


def _inner(margin: int) -> tuple[Any, ...]:
    part = slice(margin, -margin) if margin else slice(None)
    return (slice(None), part, part)


def psnr_of_floats(image: Floats, reference: Floats) -> float | None:
    """Return PSNR in dB of pictures [3, H, W] in [-1, 1], the first one clipped; None if they are equal."""
    square = float(np.mean(np.square(np.clip(image, -1, 1).astype(np.float64) - reference)))
    return 10 * math.log10(4 / square) if square else None


def bilinear(batch: Floats, scale: float) -> Floats:
    """Resize [..., H, W] by ``scale``, like torch's ``interpolate(mode="bilinear")`` without antialiasing."""
    for axis in (-2, -1):
        length = batch.shape[axis]
        size = round(length * scale)
        places = np.clip((np.arange(size) + 0.5) / scale - 0.5, 0, length - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (places - low).astype(np.float32)
        share = share[:, None] if axis == -2 else share
        batch = np.take(batch, low, axis) * (1 - share) + np.take(batch, high, axis) * share
    return np.ascontiguousarray(batch)


def _turned(batch: Floats) -> Floats:
    return np.ascontiguousarray(np.rot90(batch, 1, (-2, -1)))


def _shifted(codec: Codec, x: Floats) -> Moved:
    """Shift by half a cell down and right: pictures by pixels, latents by the ideal interpolation."""
    factor = codec.space.downsampling_factor
    pixels = factor // 2
    height, width = (side - factor for side in x.shape[2:])
    here = np.ascontiguousarray(x[:, :, :height, :width])
    there = np.ascontiguousarray(x[:, :, pixels : pixels + height, pixels : pixels + width])
    return Moved(there, fourier_shift(codec.encode_unit(here), pixels / factor), MARGIN)


def fourier_shift(batch: Floats, cells: float) -> Floats:
    """Return periodic [..., h, w] at the places ``cells`` further along both axes, ideally interpolated."""
    spectrum = np.fft.fft2(batch.astype(np.float64))
    for axis in (-2, -1):
        frequencies = np.fft.fftfreq(batch.shape[axis])
        phase = np.exp(2j * np.pi * frequencies * cells)
        spectrum = spectrum * (phase[:, None] if axis == -2 else phase)
    return np.ascontiguousarray(np.fft.ifft2(spectrum).real.astype(np.float32))
