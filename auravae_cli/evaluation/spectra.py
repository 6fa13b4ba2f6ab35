"""Power spectra of latents and pictures, as means over rings of equal frequency.

As in analyses of what diffusion can model (Skorokhodov et al. 2025, "Improving the Diffusability of
Autoencoders", arXiv 2502.14831, who use the DCT of blocks): latents with much power at high frequencies
are harder to model. Here it is the discrete Fourier transform of the whole under a Hann window, and a
spectrum is divided by the variance: white noise has 1 everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RINGS = 16  # between 0 and half a cycle per cell, or per pixel

Floats = NDArray[np.floating]


def ring_means(powers: Floats) -> list[float | None]:
    """Return the mean of powers [..., H, W] by frequency over each ring; None if no frequency is in it.

    The mean frequency itself is in no ring, nor are those beyond half a cycle, in the corners.
    """
    height, width = powers.shape[-2:]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    ring = np.ceil(radius * 2 * RINGS - 1e-9).astype(int)  # 1 to RINGS, 0 for the mean
    flat = powers.reshape(-1, height * width).mean(0)
    sums = np.bincount(ring.ravel(), flat, RINGS + 1)[1 : RINGS + 1]
    numbers = np.bincount(ring.ravel(), minlength=RINGS + 1)[1 : RINGS + 1]
    return [float(s / n) if n else None for s, n in zip(sums, numbers, strict=True)]


def powers(planes: Floats) -> NDArray[np.float64]:
    """Return |DFT|^2 of planes [..., H, W] under a Hann window, less their means: white noise of variance v
    gives v in every place."""
    height, width = planes.shape[-2:]
    window = np.outer(_hann(height), _hann(width))
    window /= np.sqrt(np.square(window).sum())
    centred = planes.astype(np.float64)
    centred = centred - (centred * window).sum((-2, -1), keepdims=True) / window.sum()
    found: NDArray[np.float64] = np.square(np.abs(np.fft.fft2(centred * window)))
    return found


def _hann(length: int) -> Floats:
    return np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2


def latent_spectrum(latent: Floats) -> list[float | None]:
    """Return the spectrum of a latent [C, h, w]: the mean over channels, each divided by its variance."""
    variances = latent.astype(np.float64).var((-2, -1), keepdims=True)
    lively = variances[:, 0, 0] > 0
    if not lively.any():
        return [None] * RINGS
    return ring_means(powers(latent[lively]) / variances[lively])


def picture_spectrum(planes: Floats) -> list[float | None]:
    """Return the spectrum of a picture's or a difference's planes [..., H, W], in its own unit."""
    return ring_means(powers(planes))
