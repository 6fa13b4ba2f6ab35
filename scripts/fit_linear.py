"""Compute the embedded linear model from photographs: PCA of 8x8 blocks within each parity class.

    python scripts/fit_linear.py PHOTOS [--output auravae_cli/weights/linear.safetensors]

PHOTOS is a folder of pictures, searched recursively. The even class gives 12 components, the
classes that are odd under one flip two each (the representation of configs/model/linear.toml).
Coefficients are scaled to unit standard deviation, or less where a coefficient of the
photographs would else be clamped. About two minutes for a thousand small photographs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auravae_cli.files.toml_config import read_config
from auravae_cli.images.read import read_image, to_unit
from auravae_cli.latents import safetensors_file
from auravae_cli.model.linear import BLOCK, fold
from auravae_cli.model.spec.config import ModelConfig, configs_path
from auravae_cli.operations.suffixes import PICTURES

Double = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument(
        "--output", type=Path, default=Path("auravae_cli/weights/linear.safetensors")
    )
    arguments = parser.parse_args()
    space = read_config(configs_path() / "model" / "linear.toml", ModelConfig).space
    paths = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in PICTURES)

    moments = {parity: LatentSums() for _, parity in space.irreps.terms}
    for path in paths:
        for parity, moment in moments.items():
            moment.add(folded_blocks(path)[parity])
    mean = moments["ee"].total / moments["ee"].count  # of the folded block: four times a quarter
    basis = np.concatenate(
        [
            moments[parity].principal_components(number, mean if parity == "ee" else 0 * mean)
            for number, parity in space.irreps.terms
        ]
    )
    scale = latent_scale(paths, basis, mean, space.irreps.parities, space.clamp)

    tensors = {
        "basis": basis.reshape(-1, 3, 4, 4),
        "mean": (mean / 4).reshape(3, 4, 4),
        "scale": scale,
    }
    card = {
        "photographs": len(paths),
        "blocks": moments["ee"].count,
        "script": "scripts/fit_linear.py",
    }
    metadata = {"auravae": json.dumps({"kind": "linear", "card": card}, sort_keys=True)}
    arguments.output.write_bytes(
        safetensors_file.pack({n: t.astype(np.float32) for n, t in tensors.items()}, metadata)
    )


class LatentSums:
    """The mean and the second moment of the folded blocks of one parity."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Double = np.zeros(3 * 16)
        self.second: Double = np.zeros((3 * 16, 3 * 16))

    def add(self, blocks: Double) -> None:
        """Take in blocks [48, number]."""
        self.count += blocks.shape[1]
        self.total += blocks.sum(axis=1)
        self.second += blocks @ blocks.T

    def principal_components(self, number: int, mean: Double) -> Double:
        """The leading quarters [number, 48]; a whole component, four quarters, has unit norm."""
        covariance = self.second / self.count - np.outer(mean, mean)
        _, vectors = np.linalg.eigh(covariance)
        leading = vectors[:, ::-1][:, :number].T / 2
        return leading * np.where(leading[:, :1] < 0, -1, 1)  # eigenvectors have no sign: fix one


def folded_blocks(path: Path) -> dict[str, Double]:
    """The whole blocks of a photograph, folded: for each parity [48, number]."""
    image = to_unit(read_image(path.read_bytes()).pixels)
    height, width = (side - side % BLOCK for side in image.shape[1:])
    return {
        parity: part.astype(np.float64).reshape(3 * 16, -1)
        for parity, part in fold(image[None, :, :height, :width]).items()
    }


def latent_scale(
    paths: list[Path], basis: Double, mean: Double, parities: tuple[str, ...], clamp: float
) -> Double:
    """What brings each coefficient to unit deviation without clamping it."""
    squares, largest, count = np.zeros(len(basis)), np.zeros(len(basis)), 0
    for path in paths:
        parts = folded_blocks(path)
        parts["ee"] = parts["ee"] - mean[:, None]
        for channel, parity in enumerate(parities):
            coefficients = basis[channel] @ parts[parity]
            squares[channel] += np.square(coefficients).sum()
            largest[channel] = max(largest[channel], np.abs(coefficients).max())
        count += parts["ee"].shape[1]
    return np.minimum(1 / np.sqrt(squares / count), clamp / largest)


if __name__ == "__main__":
    main()
