"""Fit the previews of models: least squares from a latent cell to the mean colour of its pixels.

    python scripts/fit_preview.py PHOTOS [--model linear --model small] [--number 400]

PHOTOS is a folder of pictures, searched recursively. Only ``ee`` channels take part, so the
preview of a flipped latent is the flipped preview. Prints the table `preview` for each model's file
in configs/model, and how well it does. A minute for 400 small photographs on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli import Codec, Preparation, load_codec
from auravae_cli.images.read import read_image
from auravae_cli.operations.suffixes import PICTURES

Double = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--number", type=int, default=400, help="of photographs, evenly chosen")
    options = parser.parse_args()
    paths = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in PICTURES)
    chosen = paths[:: max(1, len(paths) // options.number)][: options.number]
    for model in options.model or ("linear", "small"):
        codec = load_codec(model, device="cpu", dtype="float32")
        cells, colours = pairs(codec, chosen)
        design = np.vstack([cells, np.ones_like(cells[:1])])
        solution, *_ = np.linalg.lstsq(design.T, colours.T, rcond=None)
        left = colours - solution.T @ design
        explained = 1 - left.var(axis=1) / colours.var(axis=1)
        print(f"\n# {model}: explains {explained.min():.2%} of the variance of colours at least")
        print(f"# of {colours.shape[1]} cells of {len(chosen)} photographs")
        print(table(codec.space.weights_sha256, solution))


def pairs(codec: Codec, paths: list[Path]) -> tuple[Double, Double]:
    """The ``ee`` channels of cells [E, N], and the mean colours of their pixels [3, N]."""
    factor, even = codec.space.downsampling_factor, list(codec.space.irreps.even_channels)
    cells, colours = [], []
    for path in paths:
        image = Preparation().apply(read_image(path.read_bytes()), factor).padded
        _, height, width = image.shape
        blocks = image.reshape(3, height // factor, factor, width // factor, factor)
        colours.append(blocks.mean(axis=(2, 4), dtype=np.float64).reshape(3, -1))
        latent = codec.encode(image[None])[0]
        cells.append(latent[even].astype(np.float64).reshape(len(even), -1))
    return np.concatenate(cells, axis=1), np.concatenate(colours, axis=1)


def table(weights_sha256: str, solution: NDArray[Any]) -> str:
    """The table `preview` in TOML; ``solution`` [E + 1, 3] ends with the offset."""
    *weights, offset = np.round(solution, 5) + 0.0
    rows = zip(("offset", "red", "green", "blue"), (offset, *np.transpose(weights)), strict=True)
    lines = [f"{name} = [{', '.join(f'{value:g}' for value in row)}]" for name, row in rows]
    return "\n".join(["[preview]", f'weights_sha256 = "{weights_sha256}"', *lines])


if __name__ == "__main__":
    main()
