"""Weights of an equivariant 3x3 convolution in the form used by kernels.c.

Hidden features carry the regular representation of the flips, four blocks of channels. Sums and
differences of the blocks, and of neighbours along an axis, are even or odd under each flip::

    blocks        e, h, v, hv   => four parities (a Hadamard transform)
    taps          -1, 0, 1      => middle, sum of both sides, difference of both sides

A weight that the flips fix connects only inputs and outputs of the same parity, so each of the four
parities of the output takes 9 of the 36 combinations: a quarter of the products. The change of
basis is invertible: representatives [out, 4 * in, 3, 3] (see `tied`) are [4, out, 9 * in] here.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SLOTS = 9  # combinations per parity of the result
HADAMARD = (
    (1.0, 1.0, 1.0, 1.0),
    (1.0, -1.0, 1.0, -1.0),
    (1.0, 1.0, -1.0, -1.0),
    (1.0, -1.0, -1.0, 1.0),
)
TAPS = ((0.0, 1.0, 0.0), (0.5, 0.0, 0.5), (-0.5, 0.0, 0.5))  # of middle, sum and difference
DIFFERENCE = 2


@cache
def order() -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Return for each parity of the result its nine (parity of the input, down, across), as in kernels.c."""
    slots: tuple[list[tuple[int, int, int]], ...] = ([], [], [], [])
    for parity in range(4):
        for down in range(3):
            for across in range(3):
                flipped = parity ^ (down == DIFFERENCE) << 1 ^ (across == DIFFERENCE)
                slots[flipped].append((parity, down, across))
    return tuple(map(tuple, slots))


def from_representatives(representatives: Tensor) -> Tensor:
    """Convert [out, 4 * in, 3, 3] => [4, out, 9 * in]. Differentiable."""
    out, channels = representatives.shape[0], representatives.shape[1] // 4
    blocks = (
        representatives.view(out, 4, channels, SLOTS).transpose(2, 3).reshape(out, 36, channels)
    )
    combined = _basis().to(representatives) @ blocks
    return combined.view(out, 4, SLOTS * channels).transpose(0, 1)


@cache
def _basis() -> Tensor:
    """Return the change of basis: combinations in their order => blocks and taps, [36, 36]."""
    hadamard = torch.tensor(HADAMARD) / 4  # so that blocks come back unscaled
    taps = torch.tensor(TAPS)
    combined = torch.einsum("pm,ai,bj->pabmij", hadamard, taps, taps).reshape(36, 36)
    return combined[[9 * p + 3 * a + b for slots in order() for p, a, b in slots]]
