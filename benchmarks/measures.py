"""The measures of an evaluation beside independent implementations of the same.

    pip install torchmetrics scikit-image colour-science scipy pytorch-msssim
    python benchmarks/measures.py [PICTURE]

Each line: the measure, ours, theirs, the difference, and whose. It ends with the largest difference, relative
to theirs; the exit code is 1 if that is above 1e-4. Packages that are not here are named and left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from auravae_cli import load_codec, ms_ssim, psnr, ssim
from auravae_cli.evaluation.compare import paired_bootstrap
from auravae_cli.evaluation.parities import assign
from auravae_cli.evaluation.spectra import latent_spectrum
from auravae_cli.evaluation.transforms import bilinear, fourier_shift
from auravae_cli.images.colour_difference import ciede2000
from auravae_cli.images.metrics import ssim_mirrored, ssim_uniform
from auravae_cli.images.read import read_image
from auravae_cli.latents.sums import LatentSums

SAMPLE = Path(__file__).parents[1] / "samples" / "rocket.webp"
TOLERANCE = 1e-4

Line = tuple[str, float, float, str]
Array = NDArray[Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("picture", nargs="?", type=Path, default=SAMPLE)
    picture = read_image(parser.parse_args().picture.read_bytes()).pixels[:256, :320]
    codec = load_codec("linear")
    decoded = codec.decode_latent(codec.encode_image(picture))
    latent = codec.encode_image(picture).to_float32()
    worst = 0.0
    for package, lines in CHECKS:
        if find_spec(package) is None:
            print(f"{package} is not here: left out")
            continue
        for name, ours, theirs, whose in lines(decoded, picture, latent):
            difference = abs(ours - theirs) / max(abs(theirs), 1e-12)
            worst = max(worst, difference)
            print(f"{name:<34}{ours:>14.7f}{theirs:>14.7f}{difference:>11.1e}  {whose}")
    print(f"largest relative difference {worst:.1e}")
    return int(worst > TOLERANCE)


def of_torchmetrics(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    metrics = import_module("torchmetrics.functional.image")
    x, y = (torch.from_numpy(a.transpose(2, 0, 1)[None].astype("f8")) for a in (image, reference))
    found = metrics.peak_signal_noise_ratio(x, y, data_range=255.0)
    yield "PSNR", psnr(image, reference), float(found), "torchmetrics"
    found = metrics.structural_similarity_index_measure(x, y, data_range=255.0)
    yield (
        "SSIM, mirrored borders",
        ssim_mirrored(image, reference) or 0,
        float(found),
        "torchmetrics",
    )
    yield "SSIM of equal pictures", ssim(reference, reference) or 0, 1.0, "its definition"


def of_msssim(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    x, y = (torch.from_numpy(a.transpose(2, 0, 1)[None].astype("f8")) for a in (image, reference))
    found = import_module("pytorch_msssim").ms_ssim(x, y, data_range=255)
    yield "MS-SSIM", ms_ssim(image, reference) or 0, float(found), "pytorch-msssim"


def of_skimage(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    metrics, colour = (import_module(f"skimage.{name}") for name in ("metrics", "color"))
    found = metrics.peak_signal_noise_ratio(reference, image)
    yield "PSNR", psnr(image, reference), float(found), "scikit-image"
    how = {"channel_axis": -1, "data_range": 255}
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found = metrics.structural_similarity(image, reference, **how, **gaussian)
    yield "SSIM, Gaussian window", ssim(image, reference) or 0, float(found), "scikit-image"
    found = metrics.structural_similarity(image, reference, **how)
    yield "SSIM, uniform window", ssim_uniform(image, reference) or 0, float(found), "scikit-image"
    found = colour.deltaE_ciede2000(colour.rgb2lab(reference), colour.rgb2lab(image)).mean()
    yield "CIEDE2000", ciede2000(image, reference), float(found), "scikit-image"


def of_colour(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    colour = import_module("colour")
    space = colour.RGB_COLOURSPACES["sRGB"]
    labs = [
        colour.XYZ_to_Lab(
            colour.RGB_to_XYZ(a / 255, space, apply_cctf_decoding=True), space.whitepoint
        )
        for a in (reference, image)
    ]
    found = colour.delta_E(*labs, method="CIE 2000").mean()
    yield "CIEDE2000", ciede2000(image, reference), float(found), "colour-science"


def of_torch(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    z = torch.from_numpy(latent[None])
    for scale in (0.25, 0.5, 0.75):
        found = torch.nn.functional.interpolate(
            z, scale_factor=scale, mode="bilinear", align_corners=False
        )
        name = f"latent scaled by {scale:g}, as EQ-VAE"
        yield name, norm(bilinear(latent, scale)), norm(found.numpy()), "torch, as its code"
    yield "latent shifted, as AF-LDM", norm(fourier_shift(latent, 0.5)), norm(af_ldm(z)), "its code"


def af_ldm(z: torch.Tensor) -> Array:
    """A shift by half a cell as AFLDM's ``fourier_shift_batch`` computes it (8003c93), which moves contents
    by +shift where ours reads at +shift; sides are made odd, where both agree on the last frequency."""
    spectrum = torch.fft.fft2(z.double())
    v = torch.fft.fftfreq(z.shape[-2], dtype=torch.float64)[:, None]
    u = torch.fft.fftfreq(z.shape[-1], dtype=torch.float64)[None]
    shifted = torch.fft.ifft2(spectrum * torch.exp(-2j * torch.pi * (-0.5 * u - 0.5 * v)))
    found: Array = shifted.real[0].numpy()
    return found


def of_scipy(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    optimize, signal, stats = (
        import_module(f"scipy.{name}") for name in ("optimize", "signal", "stats")
    )
    gains = np.random.default_rng(0).random((48, 48))
    rows, columns = optimize.linear_sum_assignment(-gains)
    theirs = float(gains[rows, columns].sum())
    yield "best assignment of 48", float(gains[range(48), assign(gains)].sum()), theirs, "scipy"
    differences = np.random.default_rng(1).normal(0.3, 1, 200)
    found = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=10_000, rng=0)
    low, high = paired_bootstrap(differences)
    interval = found.confidence_interval
    print(
        f"bootstrap, drawn: {low:.4f} to {high:.4f}; scipy {interval.low:.4f} to {interval.high:.4f}"
    )
    noise = np.random.default_rng(2).normal(0, 1, (4, 64, 64))
    _, power = signal.periodogram(
        noise.reshape(-1, 64), window="hann", detrend=False, return_onesided=False
    )
    ours = [value for value in latent_spectrum(noise)[1:] if value is not None]
    print(
        f"white noise, drawn: {np.mean(ours):.3f}; scipy's periodogram {power[:, 2:].mean():.3f}; 1 expected"
    )


def of_numpy(image: Array, reference: Array, latent: Array) -> Iterator[Line]:
    statistics = LatentSums.of(latent, 8.0).statistics()
    values = latent.reshape(len(latent), -1).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(values, bias=True))
    theirs = float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())
    yield "effective dimension", statistics["effective_dimension"], theirs, "numpy's eigenvalues"
    matrix = np.asarray(np.corrcoef(values))
    others = np.abs(matrix[~np.eye(len(latent), dtype=bool)]).mean()
    yield "mean |correlation|", statistics["mean_correlation"], float(others), "numpy's corrcoef"


def norm(array: Array) -> float:
    """A number that depends on every value and its place."""
    weights = np.cos(np.arange(array.size)).reshape(array.shape)
    return float((array * weights).sum())


Check = Callable[[Array, Array, Array], Iterator[Line]]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("torchmetrics", of_torchmetrics),
    ("pytorch_msssim", of_msssim),
    ("skimage", of_skimage),
    ("colour", of_colour),
    ("torch", of_torch),
    ("scipy", of_scipy),
    ("numpy", of_numpy),
)


if __name__ == "__main__":
    sys.exit(main())
