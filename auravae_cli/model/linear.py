"""The linear autoencoder: 8x8 blocks projected on 16 components, each of one parity.

A block is folded first: sums and differences of mirrored pixels give its parts of even and odd
parity under each flip, a quarter of the block each. A component of parity p then reads only its own
part. Therefore encoding (folding, then a weighted sum in a fixed order) and decoding commute with
the group exactly, not only up to rounding (except the sign of a zero, if a block has none of an odd
component).

Needs only numpy, and computes in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.model.planning.run_plan import Plan, plan_linear
from auravae_cli.symmetry.arrays import as_numpy, like
from auravae_cli.symmetry.group import PARITIES, Irreps

BLOCK = 8
HALF = BLOCK // 2
CELLS_AT_ONCE = 4096
Float = NDArray[np.float32]


@dataclass(frozen=True)
class LinearAutoencoder:
    """PCA of 8x8 RGB blocks within each parity class.

    Attributes:
        basis: [C, 3, 4, 4], the upper left quarter of each component; the other quarters follow from
            its parity. The whole component has unit norm.
        mean: [3, 4, 4], the upper left quarter of the mean block (which is even).
        scale: [C], the factor from each coefficient to a latent value.
        irreps: the parity of each component.
    """

    basis: Float
    mean: Float
    scale: Float
    irreps: Irreps

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1], sides multiples of 8 => [B, C, H/8, W/8], not clamped."""
        x = as_numpy(images)
        batch, _, height, width = x.shape
        weights = self.basis * self.scale[:, None, None, None]
        latents = np.zeros((batch, self.irreps.dim, height // BLOCK, width // BLOCK), np.float32)
        for rows in _strips(height // BLOCK, width // BLOCK):
            parts = fold(x[:, :, rows.start * BLOCK : rows.stop * BLOCK])
            parts["ee"] -= 4 * self.mean[:, :, :, None, None]
            for channels, parity in self._runs():
                sums = latents[:, channels, rows]
                product = np.empty_like(sums)
                for place in np.ndindex(weights.shape[1:]):
                    column = weights[(channels, *place)][:, None, None]
                    sums += np.multiply(column, parts[parity][:, None, *place], out=product)
        return like(latents, images)

    def decode(self, latents: Any) -> Any:
        """Decode [B, C, h, w] => [B, 3, 8h, 8w], about [-1, 1], not clipped."""
        z = as_numpy(latents)
        batch, _, height, width = z.shape
        weights = self.basis / self.scale[:, None, None, None]
        images = np.empty((batch, 3, height * BLOCK, width * BLOCK), np.float32)
        for rows in _strips(height, width):
            shape = (batch, 3, HALF, HALF, rows.stop - rows.start, width)
            parts = {parity: np.zeros(shape, np.float32) for parity in PARITIES}
            product = np.empty(shape, np.float32)
            for channel, parity in enumerate(self.irreps.parities):
                values = z[:, channel, None, None, None, rows]
                column = weights[channel][..., None, None]
                parts[parity] += np.multiply(column, values, out=product)
            parts["ee"] += self.mean[:, :, :, None, None]
            images[:, :, rows.start * BLOCK : rows.stop * BLOCK] = unfold(parts)
        return like(images, latents)

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Return the cost of a run."""
        return plan_linear(part, self.irreps.dim, (batch, height, width))

    def _runs(self) -> Iterator[tuple[slice, str]]:
        """Yield the runs of adjacent channels of equal parity."""
        start = 0
        for multiplicity, parity in self.irreps.terms:
            yield slice(start, start + multiplicity), parity
            start += multiplicity


def _strips(height: int, width: int) -> Iterator[slice]:
    """Yield groups of rows of blocks, small enough for the cache, for any picture."""
    at_once = max(1, CELLS_AT_ONCE // width)
    for start in range(0, height, at_once):
        yield slice(start, min(height, start + at_once))


def fold(images: Float) -> dict[str, Float]:
    """Fold [B, 3, H, W] => for each parity, the sums of mirrored pixels [B, 3, 4, 4, H/8, W/8]."""
    batch, channels, height, width = images.shape
    blocks = images.reshape(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    # [B, 3, row, column, h, w], copied so that each pixel of all blocks is one contiguous plane
    blocks = np.ascontiguousarray(blocks.transpose(0, 1, 3, 5, 2, 4))
    left, right = blocks[:, :, :, :HALF], blocks[:, :, :, : HALF - 1 : -1]
    parts = {}
    for odd_h, columns in (("e", left + right), ("o", left - right)):
        upper, lower = columns[:, :, :HALF], columns[:, :, : HALF - 1 : -1]
        parts[odd_h + "e"], parts[odd_h + "o"] = upper + lower, upper - lower
    return parts


def unfold(parts: dict[str, Float]) -> Float:
    """Apply the adjoint of `fold`: quarters [B, 3, 4, 4, h, w] of each parity => [B, 3, 8h, 8w]."""
    batch, channels, _, _, height, width = parts["ee"].shape
    blocks = np.empty((batch, channels, BLOCK, BLOCK, height, width), np.float32)
    mirrored = slice(None, HALF - 1, -1)
    for sign_v, rows in ((1, slice(HALF)), (-1, mirrored)):
        for sign_h, columns in ((1, slice(HALF)), (-1, mirrored)):
            # The order of additions is the same in all four quarters, so flips are exact.
            even_v = parts["ee"] + sign_h * parts["oe"]
            odd_v = parts["eo"] + sign_h * parts["oo"]
            blocks[:, :, rows, columns] = even_v + sign_v * odd_v
    blocks = blocks.transpose(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, channels, height * BLOCK, width * BLOCK)
